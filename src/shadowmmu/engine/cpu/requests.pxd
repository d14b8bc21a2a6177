# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu

cdef void serve(KvmVcpu *vcpu) noexcept nogil
cdef int prepare_entry(KvmVcpu *vcpu) noexcept nogil
