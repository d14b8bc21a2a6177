# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, PteListDesc, spte_t, u64

cdef struct PteListIter:
    PteListDesc *desc
    u64 pos
ctypedef PteListIter *PteListIterPtr

cdef u64 pte_list_add(Kvm *kvm, spte_t *sptep, u64 *head) noexcept nogil
cdef void pte_list_remove(Kvm *kvm, spte_t *sptep, u64 *head) noexcept nogil
cdef u64 pte_list_count(u64 head) noexcept nogil
cdef spte_t *pte_list_first(u64 head, PteListIter *it) noexcept nogil
cdef spte_t *pte_list_next(PteListIter *it) noexcept nogil
