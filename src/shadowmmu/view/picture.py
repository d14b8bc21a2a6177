"""The shadow tables of a VM as data: root chain, tables, entries beside the guest's own.

Neighbouring entries that map pages alike are one `Pages` row. Nothing is decided here that the engine has not
decided: the rows say what is in its tables now.
"""

from __future__ import annotations

import msgspec

from shadowmmu import ShadowPageView, Vcpu, Vm
from shadowmmu.view.data import Hex
from shadowmmu.view.entries import EntryReader, GuestEntry, Mapping, role_flags, role_words

SPECIAL, BARE, SHADOW = "special", "bare", "shadow"


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
    """A table of the shadow. `kind`: special, shadow, or bare (a legacy root table, which is no shadow page).

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


class VcpuPicture(msgspec.Struct, kw_only=True):
    """One vCPU: its registers, its root, and roots kept for later as (CR3, table). `root_flags`: of the root's role.

    While an L2 runs (`guest_mode`) the registers are L2's, and `ncr3` is where L1 keeps its nested tables, which are
    those that the root shadows; `mode` is theirs. None: L2 has no nested paging, and the root shadows its own tables.
    """

    vcpu: int
    mode: str
    guest_mode: bool
    ncr3: Hex | None
    guest_levels: int
    shadow_levels: int
    cr0: Hex
    cr3: Hex
    cr4: Hex
    efer: Hex
    root_flags: list[str]
    root: Table | None
    kept: list[tuple[Hex, Hex]]


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
        guest, shadow = vcpu.levels
        root = None if vcpu.root is None else self.table(vcpu, vcpu.root & ~0xFFF, shadow)
        return VcpuPicture(
            vcpu=vcpu.id, mode=MODES[guest], guest_levels=guest, shadow_levels=shadow,
            guest_mode=vcpu.guest_mode, ncr3=None if vcpu.ncr3 is None else Hex(vcpu.ncr3),
            cr0=Hex(vcpu.cr0), cr3=Hex(vcpu.cr3), cr4=Hex(vcpu.cr4), efer=Hex(vcpu.efer),
            root_flags=role_flags(vcpu.root_role), root=root, kept=[(Hex(cr3), Hex(hpa)) for cr3, hpa in vcpu.prev_roots],
        )  # fmt: skip

    def table(self, vcpu: Vcpu, hpa: int, level: int) -> Table:
        page = self.vm.shadow_page(hpa)
        table = Table(hpa=Hex(hpa), kind=BARE, level=level)
        if page is not None:
            table.kind = SPECIAL if page.special else SHADOW
            table.role, table.words, table.direct = Hex(page.role), role_words(page.role, vcpu.root_role), page.direct
            table.gfn = None if page.special else Hex(page.gfn)
            table.unsync, table.unsync_children, table.obsolete = page.unsync, page.unsync_children, page.obsolete
            table.root_count, table.parents = page.root_count, len(page.parents)
        table.repeated = hpa in self.seen
        self.seen.add(hpa)
        if not table.repeated:
            self.fill(vcpu, table, page)
        return table

    def fill(self, vcpu: Vcpu, table: Table, page: ShadowPageView | None) -> None:
        """Append the table's rows in order of their index."""
        for mapping in self.reader.mappings(vcpu, table.hpa, table.level, page):
            if mapping.child is not None:
                child = self.table(vcpu, mapping.child, table.level - 1)
                table.rows.append(Link(index=mapping.index, entry=Hex(mapping.entry), guest=mapping.guest, table=child))
            elif not table.rows or not _extend(table.rows[-1], mapping):
                table.rows.append(_row(mapping))


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
