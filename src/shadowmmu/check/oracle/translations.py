# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""The sets of translations that a bare CPU could hold with one PCID: what the virtual TLB of `oracle` is made of.

Compiled, as it is gone through at each flush and each store to a table; its types stand in the .pxd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from shadowmmu.check.oracle.unguarded import GuestMemory, Unguarded
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.walk import Paging, Step, Translation, use_entry

Node = tuple[int, int]  # (step of a walk, the address above what its tables index)
_ACCESSED, _DIRTY, _ALL = hw.ACCESSED, hw.DIRTY, hw.ALL


class Child:
    """The entry `at` of the tables of one node: below it lie the watched `pages`, and the node `key`."""

    def __init__(self, step: int, at: int, key: Node, pages: tuple[int, ...]) -> None:
        self.step, self.at, self.key, self.pages = step, at, key, pages


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

    def __init__(self, tlb: Walked, watched: Iterable[int], cr3: int) -> None:
        self.tlb, self.memory, self.cr3 = tlb, tlb.memory, cr3
        self.mixed = False
        """It may hold translations of several CR3s: another was loaded with this PCID, keeping them."""
        self.pages: dict[int, set[Translation]] = {page: set() for page in watched}
        self.tables: dict[Node, set[tuple[int, int]]] = {}
        self.depends: dict[int, list[tuple[Child, int]]] = {}  # host address of an entry -> where it was reached, rights

    def keep(self, wanted: Callable[..., bool]) -> None:
        """Drop the pages that are not `wanted` (watched page, translation), then look at all tables again."""
        for page, members in self.pages.items():
            if members:
                self.pages[page] = {t for t in members if wanted(page, t)}
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
        reached, at = self.tables[key], (table, rights)
        if at in reached:
            return
        reached.add(at)
        tlb, width = self.tlb, self.tlb.mode.entry_size
        start = self.memory.host(table)
        if start is None:
            return
        first = start
        below = rights if self.memory.writable(table) else rights | _ACCESSED
        unguarded = tlb.unguarded
        mmio = bool(unguarded.gfns) and table >> 12 in unguarded.gfns
        for child in tlb.shape[key]:
            hpa = first + child.at * width
            if mmio:
                unguarded.values.setdefault(hpa, set())
            self.depends.setdefault(hpa, []).append((child, below))
            self._use(child, hpa, below, width)

    def _use(self, child: Child, hpa: int, rights: int, width: int) -> None:
        """Add what the entry of `width` bytes at `hpa` leads to now. ACCESSED in `rights`: its table is in a read-only slot."""
        entry = self.memory.read(hpa, width)
        unguarded = self.tlb.unguarded
        self._follow(child, entry, rights)
        if (unguarded.values and hpa in unguarded.values) or ((outside := unguarded.outside[width]) and hpa in outside):
            for value in unguarded.before(hpa, width, entry):
                self._follow(child, value, rights)

    def _follow(self, child: Child, entry: int, rights: int) -> None:
        """Add what an entry of this value leads to."""
        if rights & _ACCESSED:
            entry |= _ACCESSED | _DIRTY
        if not entry & _ACCESSED or not entry & 1:
            return
        for mode, steps in self.tlb.views:
            step = steps[child.step]
            fault, address, below, leaf = use_entry(mode, step, entry, rights & _ALL)
            if fault:
                continue
            if leaf:
                found = Translation(address, step.shift, below)
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
                    self._use(child, slot, rights, width)
        return count
