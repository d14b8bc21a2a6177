# SPDX-License-Identifier: GPL-2.0-only
"""What a guest entry meets: the roots that the two VMs have, and PDPTEs that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.trace.fields import FRAME_BITS
from shadowmmu.x86.pte import Pte

PRESENT = int(Pte.PRESENT)
PAGE = 4096


def freed_on_request(side: ReplayedVm) -> list[bool]:
    """Of each MMU whose root a request to free obsolete ones takes, in that order: it is bare, and all that it leads to is in force."""
    freed = []
    for mmu in sorted(side.vcpu.mmus, key=lambda mmu: mmu.name != "root"):
        if mmu.root is None:
            continue
        page = side.vm.shadow_page(mmu.root)
        if page is None:
            freed.append(not any(_zapped(side, mmu.root & FRAME_BITS, mmu.levels)))
        elif page.obsolete:
            freed.append(False)
    return freed


def _zapped(side: ReplayedVm, table: int, level: int) -> Iterator[bool]:
    """Of each page that a bare table leads to, over bare tables between them: whether it is no longer in force."""
    for index in range(4 if level == 3 else 512):
        entry = side.vm.read_host_u64(table + 8 * index)
        if not entry & PRESENT:
            continue
        page = side.vm.shadow_page(entry & FRAME_BITS)
        if page is not None:
            yield page.obsolete
        else:
            yield from _zapped(side, entry & FRAME_BITS, level - 1)


def leads_nowhere(side: ReplayedVm) -> bool:
    """A present PDPTE of the guest, or of L1's nested tables, names memory that no slot has."""
    mmu = next(mmu for mmu in side.vcpu.mmus if mmu.in_use)
    if mmu.guest_levels != 3:
        return False
    entries = side.vcpu.pdptrs if mmu.name == "root" else _read_pdptes(side, mmu.pgd)
    slots = [range(slot.gpa, slot.gpa + slot.size) for slot in side.vm.memslots()]
    return any(entry & PRESENT and not any(entry & -PAGE in slot for slot in slots) for entry in entries)


def _read_pdptes(side: ReplayedVm, pgd: int) -> tuple[int, ...]:
    return tuple(int.from_bytes(side.vm.read_guest((pgd & -32) + 8 * index, 8), "little") for index in range(4))


def keeps_obsolete(side: ReplayedVm) -> bool:
    """A root of the vCPU is a page that is in force no longer: it should have been freed."""
    pages = (side.vm.shadow_page(mmu.root) for mmu in side.vcpu.mmus if mmu.root is not None)
    return any(page is not None and page.obsolete for page in pages)


def special_tables(side: ReplayedVm) -> set[int]:
    """The special pages that the VM's roots are made of, of every vCPU."""
    found = set[int]()
    for vcpu in side.vm.vcpus:
        for mmu in vcpu.mmus:
            table = mmu.root
            while table is not None and (page := side.vm.shadow_page(table & FRAME_BITS)) is not None and page.special:
                found.add(page.hpa)
                entry = side.vm.read_host_u64(page.hpa)
                table = entry & FRAME_BITS if page.level > 3 and entry & PRESENT else None
    return found
