# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, gfn_t

cdef void try_split_huge_pages(Kvm *kvm, MemSlot *slot, gfn_t start, gfn_t end) noexcept nogil
