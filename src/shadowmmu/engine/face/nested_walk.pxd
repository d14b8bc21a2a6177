# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu, gpa_t

cdef enum:
    MOST_NESTED_STEPS = 5

cdef struct NestedStep:        # an entry that is used on the way
    int level
    uint64_t at, entry
    bint known                 # there is memory to read it from
ctypedef NestedStep *NestedStepPtr

cdef struct NestedPath:
    int steps
    NestedStep step[MOST_NESTED_STEPS]
    bint leads                 # somewhere
    uint64_t gpa               # of L1
ctypedef NestedPath *NestedPathPtr

cdef void follow_nested(KvmVcpu *vcpu, gpa_t gpa, NestedPath *path) noexcept nogil
cdef object walk_nested(KvmVcpu *vcpu, gpa_t gpa)
