# SPDX-License-Identifier: GPL-2.0-only
"""Shadow tables against the guest's own, as a bare CPU walks these now.

What is not judged: entries of unsync pages, which may be stale until the guest invalidates; marks of MMIO; and what hangs
below a PDPTE of an NPT that has changed in memory since it was linked, as nothing protects the page that it is in.
"""

from collections.abc import Iterator

from shadowmmu import Vm
from shadowmmu.engine.face.types import MmuView, ShadowPageView
from shadowmmu.hardware.walk import ADDRESS, DIRTY, FETCH, USER, WRITE, Features, Paging, paging, walk
from shadowmmu.x86.control import Cr0, Cr4, Efer

PRESENT, LARGE, NX = 1 << 11, 1 << 7, 1 << 63
"""KVM's own mark of an entry that is there, and what the CPU sees."""
EFER_NX_ROLE = 1 << 12


def leaves(vm: Vm, table: int, base: int = 0) -> Iterator[tuple[int, int, ShadowPageView]]:
    """Address, entry and page of every leaf below a table."""
    page = vm.shadow_page(table)
    if page is None or page.unsync:
        return
    for index, entry in vm.used_words(table, 512).items():
        address = base + (index << 3 + 9 * page.level)
        if not entry & PRESENT:
            continue
        if page.level == 1 or (entry & LARGE and page.level < 4):
            yield address, entry, page
        else:
            yield from leaves(vm, entry & ADDRESS, address)


def judge(vm: Vm) -> list[str]:
    """What the tables in use allow and a bare CPU would not, one line each."""
    wrong = []
    for vcpu in vm.vcpus:
        for mmu in vcpu.mmus:
            if mmu.in_use and mmu.root is not None:
                wrong += [f"vCPU {vcpu.id}, {mmu.name}: {line}" for line in _judge_tables(vm, vcpu, mmu)]
    return wrong


def _judge_tables(vm, vcpu, mmu: MmuView) -> Iterator[str]:
    nested = mmu.name == "guest"
    mode = _nested_mode(mmu) if nested else paging(vcpu.cr0, vcpu.cr4, vcpu.efer, Features(vm.maxphyaddr))
    direct = mmu.guest_levels == 0 or mmu.direct
    pdptes = vcpu.pdptrs if mmu.guest_levels == 3 and not nested else None

    def read(gpa: int, size: int) -> int | None:
        return int.from_bytes(vm.read_guest(gpa, size), "little") if vm.host_address(gpa) is not None else None

    for address, entry, _ in leaves(vm, mmu.root):
        if nested and mmu.guest_levels == 3 and _has_moved(vm, mmu, address, read):
            continue
        found = None if direct else walk(mode, read, mmu.pgd, address, USER if nested else 0, True, pdptes=pdptes)
        gpa = address if found is None else None if isinstance(found, int) else found.address(address)
        if gpa is None or vm.host_address(gpa) != entry & ADDRESS & -4096:
            yield f"{address:#x} leads to {entry:#x}, the guest's tables to {gpa if gpa is None else hex(gpa)}"
        elif found is not None and not _within(mode, entry, found.rights):
            yield f"{address:#x} has {entry:#x}, the guest's tables allow {found.rights:#x}"


def _nested_mode(mmu: MmuView) -> Paging:
    """L1's, as far as the walk of its nested tables needs it."""
    cr4 = Cr4.PSE | (Cr4.PAE if mmu.guest_levels > 2 else 0) | (Cr4.LA57 if mmu.guest_levels == 5 else 0)
    efer = (Efer.LME if mmu.guest_levels > 3 else 0) | (Efer.NXE if mmu.role & EFER_NX_ROLE else 0)
    return paging(Cr0.PG | Cr0.PE | Cr0.WP, cr4, efer)


def _has_moved(vm: Vm, mmu: MmuView, address: int, read) -> bool:
    """The PDPTE in memory names another table than the level-2 page is of."""
    table = mmu.root
    while (page := vm.shadow_page(table)) is not None and page.level > 2:
        table = vm.read_host_u64(table + (address >> 9 * page.level & 0xFF8)) & ADDRESS
    pdpte = read((mmu.pgd & 0xFFFFFFE0) + (address >> 27 & 0x18), 8) or 0
    return page is None or not pdpte & 1 or (pdpte & ADDRESS) >> 12 != page.gfn


def _within(mode: Paging, entry: int, rights: int) -> bool:
    """Each access that the entry lets through, the guest's tables allow."""
    who = USER if entry & USER else 0
    allowed = mode.permits(rights, who, True)
    if entry & WRITE:
        allowed = allowed and mode.permits(rights, who | WRITE, True) and bool(rights & DIRTY)
    if not entry & NX:
        allowed = allowed and mode.permits(rights, who | FETCH, True)
    return allowed
