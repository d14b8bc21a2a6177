# SPDX-License-Identifier: GPL-2.0-only
"""The sets of translations that a bare CPU could hold with one PCID: what the virtual TLB of `oracle` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.walk import Paging, Step, Translation, use_entry


class GuestMemory(Protocol):
    """The VM's memslots as they are now: what backs an address, whether it may be written; aligned values there."""

    def host(self, gpa: int) -> int | None: ...
    def writable(self, gpa: int) -> bool: ...
    def read(self, hpa: int, size: int) -> int: ...


Node = tuple[int, int]  # (step of a walk, the address above what its tables index)


class Unguarded:
    """Guest tables that Linux 6.1 may let the guest write unseen, and what their entries have been.

    Where a gfn was used as MMIO a mark may remember that it was writable. When a memslot has come, the next access through
    that mark maps the gfn writable without a look at what is shadowed: what its entries were stays in force.
    """

    def __init__(self) -> None:
        self.mmio: set[int] = set()
        """gfns that were used where there was no memory."""
        self.gfns: set[int] = set()
        """Those of them that have memory by now."""
        self.values: dict[int, set[int]] = {}
        """Host address of an entry in such a table -> all that it was seen to be."""
        self.outside: dict[int, dict[int, set[int]]] = {4: {}, 8: {}}
        """Bytes of an entry -> host address -> what it was before stores from outside the VM. The MMU was not told of these, so that
        stays in force where it is shadowed, until the guest itself stores there."""

    def memory_changed(self, memory: GuestMemory) -> None:
        self.gfns |= {gfn for gfn in self.mmio if memory.host(gfn << 12) is not None}

    def store_from_outside(self, hpa: int, size: int, read: Callable[[int, int], int]) -> None:
        """Such a store is about to be made."""
        for width, entries in self.outside.items():
            for at in range(hpa & -width, hpa + size, width):
                entries.setdefault(at, set()).add(read(at, width))

    def stored(self, hpa: int, size: int) -> None:
        """The guest has stored, or the MMU was told: what is shadowed is of now, or will be when the guest flushes."""
        for width, entries in self.outside.items():
            for at in range(hpa & -width, hpa + size, width) if entries else ():
                entries.pop(at, None)

    def before(self, hpa: int, width: int, entry: int) -> set[int]:
        """What the entry at `hpa` may be in the shadow besides `entry`, which it is now."""
        if hpa in self.values:
            self.values[hpa].add(entry)
        return (self.values.get(hpa, set()) | self.outside[width].get(hpa, set())) - {entry}


class Child(NamedTuple):
    """The entry `at` of the tables of one node: below it lie the watched `pages`, and the node `key`."""

    step: int
    at: int
    key: Node
    pages: tuple[int, ...]


class Walked(Protocol):
    """The vCPU whose tables a space follows: its mode, its tree of watched addresses, and how entries may be read."""

    memory: GuestMemory
    unguarded: Unguarded
    mode: Paging
    shape: dict[Node, tuple[Child, ...]]
    views: list[tuple[Paging, tuple[Step, ...]]]
    nested: bool

    @property
    def pdptes(self) -> tuple[int, ...]: ...


class AddressSpace:
    """The sets of one PCID. Global pages found here serve the other PCIDs too (SDM 4.10.2.4)."""

    __slots__ = ("cr3", "depends", "mixed", "pages", "tables", "tlb")

    def __init__(self, tlb: Walked, watched: Iterable[int], cr3: int) -> None:
        self.tlb, self.cr3 = tlb, cr3
        self.mixed = False
        """It may hold translations of several CR3s: another was loaded with this PCID, keeping them."""
        self.pages: dict[int, set[Translation]] = {page: set() for page in watched}
        self.tables: dict[Node, set[tuple[int, int]]] = {}
        self.depends: dict[int, list[tuple[Child, int]]] = {}  # host address of an entry -> where it was reached, rights

    def keep(self, wanted: Callable[..., bool]) -> None:
        """Drop the pages that are not `wanted` (watched page, translation), then look at all tables again."""
        self.pages = {page: {t for t in members if wanted(page, t)} for page, members in self.pages.items()}
        self.rebuild()

    def rebuild(self) -> None:
        """Forget the tables reached and start again at CR3. Pages stay."""
        tlb, mode = self.tlb, self.tlb.mode
        self.depends, self.tables = {}, {key: set() for key in tlb.shape}
        if mode.levels == 3:
            self._visit_pdptes()
        elif mode.levels:
            self._visit((0, 0), self.cr3 & hw.ADDRESS, hw.ALL)

    def _visit_pdptes(self) -> None:
        pdptes = self.tlb.pdptes
        for key in [k for k in self.tlb.shape if k[0] == 0]:
            pdpte = pdptes[key[1] & 3]
            if pdpte & 1:
                self._visit(key, pdpte & hw.ADDRESS, hw.ALL)

    def _visit(self, key: Node, table: int, rights: int) -> None:
        """The CPU can have reached `table` at this node with `rights`: so all its watched entries count."""
        if (table, rights) in self.tables[key]:
            return
        self.tables[key].add((table, rights))
        tlb, memory, width = self.tlb, self.tlb.memory, self.tlb.mode.entry_size
        start = memory.host(table)
        if start is None:
            return
        below = rights if memory.writable(table) else rights | hw.ACCESSED
        unguarded = table >> 12 in tlb.unguarded.gfns
        for child in tlb.shape[key]:
            hpa = start + child.at * width
            if unguarded:
                tlb.unguarded.values.setdefault(hpa, set())
            self.depends.setdefault(hpa, []).append((child, below))
            self._use(child, hpa, below)

    def _use(self, child: Child, hpa: int, rights: int) -> None:
        """Add what the entry at `hpa` leads to now. ACCESSED in `rights`: its table is in a read-only slot."""
        entry = self.tlb.memory.read(hpa, self.tlb.mode.entry_size)
        unguarded, width = self.tlb.unguarded, self.tlb.mode.entry_size
        self._follow(child, entry, rights)
        if hpa in unguarded.values or hpa in unguarded.outside[width]:
            for value in unguarded.before(hpa, width, entry):
                self._follow(child, value, rights)

    def _follow(self, child: Child, entry: int, rights: int) -> None:
        """Add what an entry of this value leads to."""
        if rights & hw.ACCESSED:
            entry |= hw.ACCESSED | hw.DIRTY
        if not entry & hw.ACCESSED:
            return
        for mode, steps in self.tlb.views:
            result = use_entry(mode, steps[child.step], entry, rights & hw.ALL)
            if isinstance(result, int):
                continue
            address, below, leaf = result
            if leaf:
                found = Translation(address, steps[child.step].shift, below)
                for page in child.pages:
                    self.pages[page].add(found)
            else:
                self._visit(child.key, address, below)

    def entries_changed(self, hpa: int, size: int) -> int:
        """Guest memory changed: entries that lie there lead to something new. Returns how many there are."""
        width, count = self.tlb.mode.entry_size, 0
        if self.tlb.nested and self.tlb.mode.levels == 3:
            self._visit_pdptes()  # no registers hold them, so a store to one counts at once
        for slot in range(hpa & -width, hpa + size, width):
            if slot in self.depends:
                count += 1
                for child, rights in tuple(self.depends[slot]):
                    self._use(child, slot, rights)
        return count
