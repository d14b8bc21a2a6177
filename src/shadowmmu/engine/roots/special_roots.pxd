# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, RootOps, gfn_t, u64

cdef int load_special_root(KvmVcpu *vcpu, gfn_t gfn, u64 *pdptrs) noexcept nogil
cdef void special_roots(RootOps *ops) noexcept nogil
