# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, u64

cdef void size_pools(Kvm *config, u64 memory_mib, u64 user_mib, u64 table_pages) noexcept nogil
cdef void init_host_memory(Kvm *kvm) noexcept nogil
