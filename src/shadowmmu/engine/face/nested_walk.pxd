# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, gpa_t

cdef object walk_nested(KvmVcpu *vcpu, gpa_t gpa)
