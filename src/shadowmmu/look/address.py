# SPDX-License-Identifier: GPL-2.0-only
"""One address, all the way to host memory, as data: the guest's tables, L1's nested tables, shadow entries beside them.

With nested paging the CPU walks two dimensions: every table of the guest itself lies at an address that the nested tables
translate (AMD APM vol. 2 section 15.25). KVM shadows the nested ones, or the guest's own where there are no others.
Nothing is set in any table by looking.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shadowmmu import MmuView, NestedWalk, Vcpu, Vm
from shadowmmu.engine.arena.spte import Spte
from shadowmmu.errors import BadInput
from shadowmmu.hardware.path import path
from shadowmmu.hardware.walk import Paging, TrailEntry, features_of, paging, walk
from shadowmmu.look.data import Hex
from shadowmmu.look.entries import EntryReader, rights
from shadowmmu.look.picture import BARE, MODES, Table, table_head
from shadowmmu.x86.control import Cr3
from shadowmmu.x86.pte import Pte

MAPPED, MMIO, NOT_YET, NO_ROOT = "mapped", "no memory", "not in the shadow", "no root"
OWN_END, NESTED_END = "the guest's tables end", "the nested tables end"


class TableEntry(msgspec.Struct, kw_only=True):
    """An entry of a table that the guest, or L1, has made.

    `at`: where it lies, physical to whom the table belongs, bytes; None: in a register. `l1`: the same in the VM's memory;
    None: nested tables do not lead there. `value`: None if there is no memory.
    """

    level: int
    at: Hex | None
    l1: Hex | None
    value: Hex | None
    rights: str


class ShadowEntry(msgspec.Struct, kw_only=True):
    """The shadow entry of one level: its table, where it lies (host physical), what it holds. 0: nothing yet."""

    table: Table
    at: Hex
    value: Hex
    rights: str


class AddressPicture(msgspec.Struct, kw_only=True):
    """One address of what a vCPU runs: `whose` is guest, L1 or L2.

    own       the guest's own tables where the CPU walks them itself, from the top; none if they are shadowed, or off
    physical  the address in the guest's physical memory; None: its tables do not map it
    beside    the tables that are shadowed, from the top: the guest's own, or (`nested`) those of L1; none if direct
    shadow    the shadow's entries for the address, from the root to a leaf or to where it ends
    gpa       the address in the physical memory of the VM (of L1), and `memory` what backs that in the host now
    host      where the shadow leads
    ends      how the way through the shadow ends
    note      why the leaf of the shadow allows less than the tables do
    allows    what all tables of each sort (own, beside, shadow) allow together; "" where they map nothing, or are none
    """

    vcpu: int
    whose: str
    address: Hex
    own_mode: str
    own: list[TableEntry]
    physical: Hex | None
    nested: bool
    mode: str
    pgd: Hex
    beside: list[TableEntry]
    shadow: list[ShadowEntry]
    gpa: Hex | None
    memory: Hex | None
    host: Hex | None
    ends: str
    note: str
    allows: tuple[str, str, str]


def follow_address(vcpu: Vcpu, address: int) -> AddressPicture:
    """Follow `address` of whoever runs on the vCPU now. Raises BadInput for one that its paging mode cannot name."""
    mmu = next(mmu for mmu in vcpu.mmus if mmu.in_use)
    nested = mmu.name == "guest"
    whose = "L2" if vcpu.guest_mode else "L1" if len(vcpu.mmus) > 1 else "guest"
    mode = paging(vcpu.cr0, vcpu.cr4, vcpu.efer, features_of(vcpu.vm.config))
    check_address(address, mode, f"{MODES[mode.levels]} {whose}")
    shadowed = not nested and not mmu.direct
    own, physical = _own_tables(vcpu, mode, address, shadowed=shadowed)
    beside: list[TableEntry] = []
    gpa = physical
    if shadowed:
        own, beside = beside, own
    elif nested:
        beside, gpa = ([], None) if physical is None else _nested_tables(vcpu, mmu, physical)
    through = address if shadowed else physical
    shadow = [] if through is None else _shadow(vcpu.vm, mmu, through)
    host, ends = _end(shadow, through, physical, gpa, mmu)
    return AddressPicture(
        vcpu=vcpu.id, whose=whose, address=Hex(address), own_mode=MODES[mode.levels], own=own, physical=_hex(physical),
        nested=nested, mode=MODES[mmu.guest_levels], pgd=Hex(vcpu.ncr3 or mmu.pgd), beside=beside, shadow=shadow, gpa=_hex(gpa),
        memory=_hex(None if gpa is None else vcpu.vm.host_address(gpa)), host=_hex(host), ends=ends,
        note=_note(vcpu.vm, mmu, shadow[-1]) if host is not None else "",
        allows=(_together(own, physical), _together(beside, gpa), _together(shadow, host)),
    )  # fmt: skip


def check_address(address: int, mode: Paging, who: str) -> None:
    """Raise BadInput unless the paging mode can name the address: 32 bits, or canonical ones."""
    width = {4: 48, 5: 57}.get(mode.levels, 32)
    if width == 32 and not 0 <= address < 1 << 32:
        raise BadInput(f"address {address:#x} is out of range: a {who} has addresses of 32 bits; give one below 0x100000000")
    if width > 32 and not (0 <= address < 1 << 64 and address >> width - 1 in (0, (1 << 65 - width) - 1)):
        raise BadInput(
            f"address {address:#x} is out of range: a {who} has canonical addresses of {width} bits; "
            f"give one below {1 << width - 1:#x} or from {(1 << 64) - (1 << width - 1):#x} on"
        )


def _hex(value: int | None) -> Hex | None:
    return None if value is None else Hex(value)


def _together(entries: list[TableEntry] | list[ShadowEntry], leads_to: int | None) -> str:
    """What entries allow one after the other; a PDPTE takes nothing away."""
    if not entries or leads_to is None:
        return ""
    told = [entry.rights for entry in entries if entry.rights]
    return "".join(letter if all(letter in one for one in told) else "-" for letter in "rwxu")


# --- the tables that a guest makes


def _own_tables(vcpu: Vcpu, mode: Paging, address: int, *, shadowed: bool) -> tuple[list[TableEntry], int | None]:
    """The guest's own tables, and the physical address they give; with paging off the address itself."""
    trail: list[TrailEntry] = []
    to_l1 = _to_l1(vcpu)
    pdptes = vcpu.pdptrs if shadowed else None
    found = walk(mode, _reader(vcpu.vm, to_l1), vcpu.cr3, address, ac=True, pdptes=pdptes, trail=trail)
    entries = [_own_entry(mode.steps[used.step].level, used.pa, to_l1, used.entry) for used in trail]
    if mode.levels == 3:
        place = (vcpu.cr3 & int(Cr3.PAE_TABLE_MASK)) + 8 * (address >> 30)
        value = pdptes[address >> 30] if pdptes is not None else _reader(vcpu.vm, to_l1)(place, 8) or 0
        entries.insert(0, _own_entry(3, None if pdptes else place, to_l1, value))
        entries[0].rights = ""
    return entries, None if isinstance(found, int) else found.address(address)


def _own_entry(level: int, at: int | None, to_l1: Callable[[int], int | None], value: int) -> TableEntry:
    l1 = None if at is None else to_l1(at)
    return TableEntry(level=level, at=_hex(at), l1=_hex(l1), value=Hex(value), rights=rights(value) if value & 1 else "")


def _to_l1(vcpu: Vcpu) -> Callable[[int], int | None]:
    """How an address in the guest's physical memory is found in the VM's: through L1's nested tables, or as it is."""

    def through_nested_tables(gpa: int) -> int | None:
        found: NestedWalk | None = vcpu.nested_walk(gpa)
        return gpa if found is None else found.gpa

    return through_nested_tables


def _reader(vm: Vm, to_l1: Callable[[int], int | None]) -> Callable[[int, int], int | None]:
    """Reads the guest's memory; None where there is none."""

    def read(at: int, size: int) -> int | None:
        gpa = to_l1(at)
        if gpa is None or vm.host_address(gpa) is None:
            return None
        return int.from_bytes(vm.read_guest(gpa, size), "little")

    return read


def _nested_tables(vcpu: Vcpu, mmu: MmuView, gpa: int) -> tuple[list[TableEntry], int | None]:
    """L1's nested tables for an L2 physical address, and the L1 physical address they give."""
    found: NestedWalk | None = vcpu.nested_walk(gpa)
    if found is None:
        return [], gpa
    entries = []
    for step in found.steps:
        bare = step.entry is None or not step.entry & 1 or (step.level == 3 and mmu.guest_levels == 3)
        said = "" if bare else rights(step.entry or 0)
        entries.append(TableEntry(level=step.level, at=Hex(step.gpa), l1=Hex(step.gpa), value=_hex(step.entry), rights=said))
    return entries, found.gpa


# --- the shadow


def _shadow(vm: Vm, mmu: MmuView, address: int) -> list[ShadowEntry]:
    """The shadow's entries from the root down, to a leaf, a mark, or an entry with nothing in it, which is told as 0."""
    entries: list[ShadowEntry] = []
    if mmu.root is None:
        return entries
    for level, _, at, value, *_ in path(lambda hpa, _size: vm.read_host_u64(hpa), mmu.root, mmu.levels, address):
        value = 0 if value == vm.nothing_in(at) else value
        entry = ShadowEntry(table=table_head(vm, mmu, at & ~0xFFF, level), at=Hex(at), value=Hex(value), rights="")
        entries.append(entry)
        if not _is_present(entry):
            break
        if not level == mmu.levels == 3:
            entry.rights = rights(value)
    return entries


def _is_present(entry: ShadowEntry) -> bool:
    """The MMU made the entry. Those of bare tables do not have KVM's own bit."""
    return bool(entry.value & (Pte.PRESENT if entry.table.kind == BARE else Spte.MMU_PRESENT))


def _end(shadow: list[ShadowEntry], through: int | None, physical: int | None, gpa: int | None, mmu: MmuView) -> tuple[int | None, str]:
    """(host address, how the way ends). What the tables do not map may still be in the shadow, stale, until it is flushed."""
    if shadow and through is not None:
        last = shadow[-1]
        if _is_present(last):
            inside = (1 << 12 + 9 * (last.table.level - 1)) - 1
            return last.value & int(Spte.BASE_ADDR) & ~inside | through & inside, MAPPED
        if last.value:
            return None, MMIO
    if physical is None:
        return None, OWN_END
    if gpa is None:
        return None, NESTED_END
    return None, NO_ROOT if mmu.root is None else NOT_YET


def _note(vm: Vm, mmu: MmuView, leaf: ShadowEntry) -> str:
    """What keeps the page from being written, or `stale`."""
    reader = EntryReader(vm, vm.shadow_pages())
    page, index = vm.shadow_page(leaf.at), (leaf.at & 0xFFF) // 8
    if page is None:
        return ""
    return reader.leaf(page.level, page, index, leaf.value, reader.guest_entry(mmu, page.level, page, index)).note
