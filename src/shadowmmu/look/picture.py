# SPDX-License-Identifier: GPL-2.0-only
"""The shadow tables of a VM as data: the roots of each MMU, tables, entries beside the guest's own.

Neighbouring entries that map pages alike are one `Pages` row. Nothing is decided here that the engine has not
decided: the rows say what is in its tables now.
"""

from __future__ import annotations

import msgspec

from shadowmmu import MmuView, ShadowPageView, Vcpu, Vm
from shadowmmu.engine.arena.role import Role
from shadowmmu.look.data import Hex
from shadowmmu.look.entries import EntryReader, GuestEntry, Mapping, role_flags, role_words

SPECIAL, BARE, PASSTHROUGH, SHADOW = "special", "bare", "passthrough", "shadow"


class Pages(msgspec.Struct, tag="pages", kw_only=True):
    """Entries `first`..`last` map memory from `gfn` on, page after page, with the same rights; `frames` of 4 KiB in all."""

    first: int
    last: int
    gfn: Hex
    frames: int
    size: str
    rights: str
    note: str
    entry: Hex
    guest: GuestEntry | None


class Mmio(msgspec.Struct, tag="mmio", kw_only=True):
    """Entries that mark guest pages without memory, good for one memslot generation."""

    first: int
    last: int
    gfn: Hex
    generation: int
    entry: Hex
    guest: GuestEntry | None


class Link(msgspec.Struct, tag="table", kw_only=True):
    """An entry that leads to a lower table."""

    index: int
    entry: Hex
    guest: GuestEntry | None
    table: Table


class Table(msgspec.Struct, kw_only=True):
    """A table of the shadow. `kind`: special, bare (a legacy root table, which is no shadow page), passthrough (of level 5,
    above a nested table of 4 levels), or shadow (all others).

    `repeated`: the table hangs below several entries and its rows stand with the first of them.
    """

    hpa: Hex
    kind: str
    level: int
    gfn: Hex | None = None
    role: Hex | None = None
    words: list[str] = []
    direct: bool = False
    unsync: bool = False
    unsync_children: int = 0
    obsolete: bool = False
    root_count: int = 0
    parents: int = 0
    repeated: bool = False
    rows: list[Row] = []


Row = Pages | Mmio | Link


class KeptRoot(msgspec.Struct):
    """A root kept for later, to be found again by CR3 or nested CR3. The table is told without its rows."""

    pgd: Hex
    table: Table


class MmuPicture(msgspec.Struct, kw_only=True):
    """One MMU of a vCPU. `root`: the MMU of a guest that runs no other, and of L1; `guest`: that of L2 on nested paging.

    `mode`, `guest_levels`: of the tables that it shadows, L1's nested tables in the case of `guest`; none if it is `direct`.
    `pgd`: where those lie, if there is a root. `root_flags`: of the role of its roots.
    """

    name: str
    in_use: bool
    mode: str
    direct: bool
    guest_levels: int
    shadow_levels: int
    pgd: Hex
    root_flags: list[str]
    root: Table | None
    kept: list[KeptRoot]


class VcpuPicture(msgspec.Struct, kw_only=True):
    """One vCPU: its registers and its MMUs. While an L2 runs (`guest_mode`) the registers are L2's, and `ncr3` is where L1
    keeps the nested tables; None: L2 has no nested paging, and the root MMU shadows its own tables.
    """

    vcpu: int
    guest_mode: bool
    ncr3: Hex | None
    cr0: Hex
    cr3: Hex
    cr4: Hex
    efer: Hex
    mmus: list[MmuPicture]

    @property
    def mmu(self) -> MmuPicture:
        """The one in use."""
        return next(mmu for mmu in self.mmus if mmu.in_use)


class Picture(msgspec.Struct, kw_only=True):
    """All of a VM's shadow. `elsewhere`: pages that no present root reaches, counted by level."""

    roots: str
    tables: dict[str, int]
    elsewhere: dict[str, int]
    vcpus: list[VcpuPicture]


MODES = {0: "nonpaging", 2: "2-level", 3: "PAE", 4: "4-level", 5: "5-level"}


def take_picture(vm: Vm) -> Picture:
    """The shadow tables of every vCPU, as they are now."""
    pages = vm.shadow_pages()
    reader = EntryReader(vm, pages)
    taker = _Taker(vm, reader)
    vcpus = [taker.vcpu(vcpu) for vcpu in vm.vcpus]
    unreached = [page for page in pages if page.hpa not in taker.seen]
    return Picture(roots=vm.roots, tables=count_tables(pages), elsewhere=count_tables(unreached), vcpus=vcpus)


def count_tables(pages: list[ShadowPageView]) -> dict[str, int]:
    """Shadow pages by level and kind, highest level first: {"l3 special": 1, "l2": 4, "l1": 9, "l1 direct": 2}."""
    counts: dict[str, int] = {}
    for page in sorted(pages, key=lambda page: (-page.level, page.direct, page.special)):
        name = f"l{page.level}{' special' if page.special else ' direct' if page.direct else ''}"
        counts[name] = counts.get(name, 0) + 1
    return counts


class _Taker:
    """Walks down from roots; `seen` are the tables met, by host address."""

    def __init__(self, vm: Vm, reader: EntryReader) -> None:
        self.vm, self.reader = vm, reader
        self.seen: set[int] = set()

    def vcpu(self, vcpu: Vcpu) -> VcpuPicture:
        mmus = [self.mmu(mmu) for mmu in sorted(vcpu.mmus, key=lambda mmu: not mmu.in_use)]
        return VcpuPicture(
            vcpu=vcpu.id, guest_mode=vcpu.guest_mode, ncr3=None if vcpu.ncr3 is None else Hex(vcpu.ncr3),
            cr0=Hex(vcpu.cr0), cr3=Hex(vcpu.cr3), cr4=Hex(vcpu.cr4), efer=Hex(vcpu.efer), mmus=mmus,
        )  # fmt: skip

    def mmu(self, mmu: MmuView) -> MmuPicture:
        return MmuPicture(
            name=mmu.name, in_use=mmu.in_use, mode=MODES[mmu.guest_levels], direct=mmu.direct,
            guest_levels=mmu.guest_levels, shadow_levels=mmu.levels, pgd=Hex(mmu.pgd), root_flags=role_flags(mmu.role),
            root=None if mmu.root is None else self.table(mmu, mmu.root & ~0xFFF, mmu.levels),
            kept=[KeptRoot(Hex(pgd), table_head(self.vm, mmu, hpa & ~0xFFF, mmu.levels)) for pgd, hpa in mmu.prev_roots],
        )  # fmt: skip

    def table(self, mmu: MmuView, hpa: int, level: int) -> Table:
        """The table with all below it."""
        table = table_head(self.vm, mmu, hpa, level)
        table.repeated = hpa in self.seen
        self.seen.add(hpa)
        if not table.repeated:
            self.fill(mmu, table)
        return table

    def fill(self, mmu: MmuView, table: Table) -> None:
        """Append the table's rows in order of their index."""
        for mapping in self.reader.mappings(mmu, table.hpa, table.level, self.vm.shadow_page(table.hpa)):
            if mapping.child is not None:
                child = self.table(mmu, mapping.child, table.level - 1)
                table.rows.append(Link(index=mapping.index, entry=Hex(mapping.entry), guest=mapping.guest, table=child))
            elif not table.rows or not _extend(table.rows[-1], mapping):
                table.rows.append(_row(mapping))


def table_head(vm: Vm, mmu: MmuView, hpa: int, level: int) -> Table:
    """The table at `hpa`, of `level`, without its rows."""
    page = vm.shadow_page(hpa)
    if page is None:
        return Table(hpa=Hex(hpa), kind=BARE, level=level)
    return Table(
        hpa=Hex(hpa), kind=_kind(page), level=page.level, gfn=None if page.special else Hex(page.gfn), role=Hex(page.role),
        words=role_words(page.role, mmu.role), direct=page.direct, unsync=page.unsync, unsync_children=page.unsync_children,
        obsolete=page.obsolete, root_count=page.root_count, parents=len(page.parents),
    )  # fmt: skip


def _kind(page: ShadowPageView) -> str:
    return SPECIAL if page.special else PASSTHROUGH if page.role & Role.PASSTHROUGH else SHADOW


def _row(mapping: Mapping) -> Pages | Mmio:
    first, entry, gfn = mapping.index, Hex(mapping.entry), Hex(mapping.gfn)
    if mapping.generation is not None:
        return Mmio(first=first, last=first, gfn=gfn, generation=mapping.generation, entry=entry, guest=mapping.guest)
    return Pages(
        first=first, last=first, gfn=gfn, frames=mapping.frames, size=mapping.size, rights=mapping.rights, note=mapping.note,
        entry=entry, guest=mapping.guest,
    )  # fmt: skip


def _extend(row: Row, mapping: Mapping) -> bool:
    """Make `mapping` part of the row before it, if it is its like."""
    if isinstance(row, Link) or row.last + 1 != mapping.index:
        return False
    if isinstance(row, Mmio):
        alike = mapping.generation == row.generation and mapping.gfn == row.gfn + mapping.index - row.first
    else:
        alike = mapping.generation is None and (mapping.rights, mapping.note, mapping.size) == (row.rights, row.note, row.size)
        alike = alike and mapping.gfn == row.gfn + row.frames
    if alike:
        row.last = mapping.index
        if isinstance(row, Pages):
            row.frames += mapping.frames
    return alike
