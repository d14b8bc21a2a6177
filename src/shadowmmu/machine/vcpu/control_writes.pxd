# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu

cdef bint load_cr0(KvmVcpu *vcpu, uint64_t value, bint in_64_bit_code, bint cs_is_long) noexcept nogil
cdef bint load_cr4(KvmVcpu *vcpu, uint64_t value, uint64_t offered) noexcept nogil
