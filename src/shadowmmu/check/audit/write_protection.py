# SPDX-License-Identifier: GPL-2.0-only
"""I8: no writable mapping, of any size and in any address space, of a table that is shadowed and in sync."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import has_gptes
from cython.cimports.shadowmmu.engine.arena.state import ADDRESS_SPACES, MemSlotPtr, ShadowPagePtr, p_spte, spte_index, sptep_to_sp, u64
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, gfn_to_rmap
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete
from cython.cimports.shadowmmu.x86.pte import Pte


def validate_write_protection(auditor: Auditor) -> None:
    """I8: neither W nor MMU-writable in any entry that maps a table of a valid page in sync."""
    i: u64
    as_id: cython.int
    level: cython.int
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        if sp.special or sp.unsync or is_obsolete(auditor.kvm, sp) or not has_gptes(sp.role):
            continue
        for as_id in range(ADDRESS_SPACES):
            slot: MemSlotPtr = gfn_to_memslot(auditor.kvm, as_id, sp.gfn)
            if slot != cython.NULL:
                for level in range(1, 4):
                    validate_protected(auditor, sp, gfn_to_rmap(slot, sp.gfn, level)[0])


@cython.cfunc
def validate_protected(auditor: Auditor, sp: ShadowPagePtr, head: u64) -> object:
    """I8: the entries of one rmap, which all map the table that `sp` shadows.

    Linux makes an MMIO mark with W a writable entry and does not look for tables: only strictly a fault.
    """
    it: PteListIter
    sptep: p_spte = pte_list_first(head, cython.address(it))
    while sptep != cython.NULL:
        holder: ShadowPagePtr = sptep_to_sp(auditor.kvm, sptep)
        excused: cython.bint = holder.unchecked and not auditor.strict
        if sptep[0] & (auditor.kvm.masks.mmu_writable | Pte.WRITABLE) and not excused:
            entry: object = auditor.entry_name(holder, spte_index(sptep))
            auditor.say("I8", f"{auditor.page_name(sp)} is in sync, and {entry} lets its table be written")
        sptep = pte_list_next(cython.address(it))
    return None
