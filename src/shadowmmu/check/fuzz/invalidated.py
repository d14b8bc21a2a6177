# SPDX-License-Identifier: GPL-2.0-only
"""I12 of one address: when the guest has executed INVLPG, no shadow entry for it is older than the guest's own.

Looked at in the present root and in those kept for later: a global page's translation would come back with them.
"""

from typing import Any

from shadowmmu.hardware.walk import ADDRESS, LARGE, PRESENT, WRITE

QUADRANT, WP, FOUR_BYTE = 0x60, 0x2000, 0x10  # of a role word
MMU_PRESENT = 0x800  # of a shadow entry; an MMIO mark has the hardware's bit alone


def stale_entry(vm: Any, vcpu: Any, gva: int) -> str:
    """The first entry that says what the guest's does not, in words; empty if there is none."""
    for mmu in vcpu.mmus:
        roots = [mmu.root, *(kept.hpa for kept in mmu.prev_roots)] if mmu.in_use and not mmu.direct else []
        for root in roots:
            page, index = _leaf(vm, root, mmu.levels, gva) if root is not None else (None, 0)
            if page is not None and page.level == 1 and page.unsync:
                entry, own = vm.read_host_u64(page.hpa + 8 * index), _guest_entry(vm, page, index)
                if entry & MMU_PRESENT and not _agrees(vm, page, entry, own):
                    return f"entry {index:#x} = {entry:#x} of the page of gfn {page.gfn:#x}, the guest's entry is {own:#x}"
    return ""


def _leaf(vm: Any, table: int, level: int, gva: int) -> tuple[Any, int]:
    """The page and the index at which the way of `gva` ends; no page where it ends in a bare table, or before a leaf."""
    page = vm.shadow_page(table)
    level = page.level if page is not None else level  # a root that is kept may be of another mode
    while True:
        page, index = vm.shadow_page(table), gva >> 12 + 9 * (level - 1) & (3 if level == 3 and not gva >> 32 else 511)
        entry = vm.read_host_u64(table + 8 * index)
        if level == 1 or not entry & PRESENT or (entry & LARGE and page is not None):
            return page, index
        table, level = entry & ADDRESS, level - 1


def _guest_entry(vm: Any, page: Any, index: int) -> int:
    size = 4 if page.role & FOUR_BYTE else 8
    number = ((page.role & QUADRANT) >> 5) * 512 + index if size == 4 else index
    return int.from_bytes(vm.read_guest((page.gfn << 12) + number * size, size), "little")


def _agrees(vm: Any, page: Any, entry: int, own: int) -> bool:
    """The same frame, and W only where the guest's entry has it, or where CR0.WP is off."""
    writes = not entry & WRITE or own & WRITE or not page.role & WP
    return bool(own & PRESENT and writes and vm.host_address(own & ADDRESS & ~0xFFF) == entry & ADDRESS)
