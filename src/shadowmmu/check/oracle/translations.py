# SPDX-License-Identifier: GPL-2.0-only
"""The sets of translations that a bare CPU could hold with one PCID: what the virtual TLB of `oracle` is made of.

Compiled, as it is gone through at each flush and each store to a table; its types stand in the .pxd.
Inline there: `with_room`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import cython

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware.walk import Paging, Step, Translation, use_entry


class Node:
    """What a walk of watched addresses comes to at one of its steps: tables, whose entries `children` are used. `above`: the
    bits of the addresses that lie above those that index them."""

    def __init__(self, number: int, above: int) -> None:
        self.number, self.above = number, above
        self.children: tuple[Child, ...] = ()


class Child:
    """The entry `at` of the tables of one node: below it lie the watched `pages`, by number, and the node `below`, if there is one."""

    def __init__(self, number: int, step: int, at: int, below: Node | None, pages: tuple[int, ...]) -> None:
        self.number, self.step, self.at, self.below, self.pages = number, step, at, below, pages


class Shape:
    """The tree of watched addresses, cut as one mode cuts addresses. `tops`: one node, of PAE paging one for each PDPTE."""

    def __init__(self, mode: Paging, watched: tuple[int, ...]) -> None:
        nodes: dict[tuple[int, int], Node] = {}
        pages: dict[tuple[int, int], list[int]] = {}  # step, address down to its index -> numbers of the watched pages
        for number, page in enumerate(watched):
            for i, step in enumerate(mode.steps):
                above = 0 if i == 0 and mode.levels != 3 else page << 12 >> step.shift + step.mask.bit_length()
                nodes.setdefault((i, above), Node(len(nodes), above))
                pages.setdefault((i, page << 12 >> step.shift), []).append(number)
        children: list[Child] = []
        for (i, address), numbers in pages.items():
            step = mode.steps[i]
            child = Child(len(children), i, address & step.mask, nodes.get((i + 1, address)), tuple(numbers))
            above = 0 if i == 0 and mode.levels != 3 else address >> step.mask.bit_length()
            nodes[i, above].children = (*nodes[i, above].children, child)
            children.append(child)
        self.tops = tuple(node for (i, _), node in nodes.items() if i == 0)
        self.nodes, self.children = tuple(nodes.values()), tuple(children)


class Walked(Protocol):
    """The vCPU whose tables a space follows: its mode, its tree of watched addresses, and how entries may be read."""

    memory: GuestMemory
    unguarded: Unguarded
    mode: Paging
    shape: Shape
    views: list[tuple[Paging, tuple[Step, ...]]]
    nested: bool

    @property
    def strict(self) -> bool: ...
    @property
    def pdptes(self) -> tuple[int, ...]: ...


class AddressSpace:
    """The sets of one PCID. Global pages found here serve the other PCIDs too (SDM 4.10.2.4).

    * leaves   for each watched page the translations that its address can have had
    * reached  for each node the tables, and the rights down to them
    * uses     the entries of those that are on the way of a watched address, as often as it was come to them
    """

    def __init__(self, tlb: Walked, watched: tuple[int, ...], cr3: int) -> None:
        self.tlb, self.memory, self.cr3 = tlb, tlb.memory, cr3
        self.unguarded, self.watched = tlb.unguarded, watched
        self.strict = tlb.strict
        self.mixed = False
        """It may hold translations of several CR3s: another was loaded with this PCID, keeping them."""
        self.first_leaf = cython.cast(p_int, realloc(cython.NULL, (len(watched) + 1) * cython.sizeof(cython.int)))
        if self.first_leaf == cython.NULL:
            raise MemoryError("no memory for what the guest's tables allow")
        self.start()
        self.forget()

    def __dealloc__(self):
        free(self.leaves)
        free(self.first_leaf)
        free(self.reached)
        free(self.first_reached)
        free(self.uses)

    # --- what is forgotten

    def forget(self) -> None:
        """No page is kept."""
        self.nleaves = 0
        self.chain_anew()

    def keep_global(self) -> None:
        """Pages that are not global are dropped."""
        kept: cython.int = 0
        k: cython.int
        for k in range(self.nleaves):
            if self.leaves[k].rights & GLOBAL:
                self.leaves[kept] = self.leaves[k]
                kept += 1
        self.nleaves = kept
        self.chain_anew()

    def drop(self, gva: int, only_global: bool) -> None:
        """Pages of any size that hold the address are dropped."""
        address: u64 = gva
        some: cython.bint = only_global
        kept: cython.int = 0
        k: cython.int
        for k in range(self.nleaves):
            page: u64 = self.watched[self.leaves[k].watched]
            if (page << 12 ^ address) >> self.leaves[k].shift or (some and not self.leaves[k].rights & GLOBAL):
                self.leaves[kept] = self.leaves[k]
                kept += 1
        self.nleaves = kept
        self.chain_anew()

    def chain_anew(self):
        """Each watched page has its own leaves."""
        k: cython.int
        for k in range(len(self.watched)):
            self.first_leaf[k] = END
        for k in range(self.nleaves):
            self.leaves[k].next = self.first_leaf[self.leaves[k].watched]
            self.first_leaf[self.leaves[k].watched] = k

    # --- what the tables allow

    def start(self):
        """No table has been reached, in the mode that the vCPU has now."""
        self.mode, self.shape, self.views = self.tlb.mode, self.tlb.shape, self.tlb.views
        self.nreached = self.nuses = 0
        nodes: cython.int = len(self.shape.nodes)
        if nodes > self.node_room:
            more: p_int = cython.cast(p_int, realloc(self.first_reached, nodes * cython.sizeof(cython.int)))
            if more == cython.NULL:
                raise MemoryError("no memory for what the guest's tables allow")
            self.first_reached, self.node_room = more, nodes
        k: cython.int
        for k in range(nodes):
            self.first_reached[k] = END

    def rebuild(self):
        """Forget the tables reached and start again at CR3. Pages stay."""
        self.start()
        if self.mode.levels == 3:
            self.visit_pdptes()
        elif self.mode.levels:
            self.visit(self.shape.tops[0], self.cr3 & ADDRESS, ALL)

    def look_again(self):
        """What lies behind guest memory has changed, and nobody has flushed: the tables that have been reached stay so."""
        shape: Shape = self.shape
        nodes, before = shape.nodes, self.reached_tables()
        self.rebuild()
        if self.shape is shape:
            for number, table, rights in before:
                self.visit(nodes[number], table, rights)

    def reached_tables(self):
        """Each with the number of its node, and the rights down to it."""
        found = []
        number: cython.int
        for number in range(len(self.shape.nodes)):
            at: cython.int = self.first_reached[number]
            while at != END:
                found.append((number, self.reached[at].table, self.reached[at].rights))
                at = self.reached[at].next
        return found

    def visit_pdptes(self):
        pdptes = self.tlb.pdptes
        node: Node
        for node in self.shape.tops:
            pdpte: u64 = pdptes[node.above & 3]
            if pdpte & 1:
                self.visit(node, pdpte & ADDRESS, ALL)

    def visit(self, node, table, rights):
        """The CPU can have reached `table` at this node with `rights`: so all its watched entries count."""
        if not self.reach(node, table, rights):
            return
        start: u64 = self.memory.frame(table)
        if start == NOWHERE:
            return
        if not self.memory.stores(table):
            rights |= ACCESSED
        unseen: cython.bint = len(self.unguarded.gfns) > 0 and table >> 12 in self.unguarded.gfns
        unseen |= not self.strict and self.memory.is_aliased(table)
        width: cython.int = self.mode.entry_size
        child: Child
        for child in node.children:
            hpa: u64 = start + child.at * width
            if unseen:
                self.unguarded.follow(hpa)
            self.uses = cython.cast(UsePtr, with_room(self.uses, self.nuses, cython.address(self.use_room), cython.sizeof(Use)))
            self.uses[self.nuses].hpa, self.uses[self.nuses].rights, self.uses[self.nuses].child = hpa, rights, child.number
            self.nuses += 1
            self.use(child, hpa, rights, width)

    def reach(self, node, table, rights):
        """Note a table. False: it is known."""
        at: cython.int = self.first_reached[node.number]
        while at != END:
            if self.reached[at].table == table and self.reached[at].rights == rights:
                return False
            at = self.reached[at].next
        self.reached = cython.cast(
            ReachedPtr, with_room(self.reached, self.nreached, cython.address(self.reached_room), cython.sizeof(Reached))
        )
        new: ReachedPtr = cython.address(self.reached[self.nreached])
        new.table, new.rights, new.next = table, rights, self.first_reached[node.number]
        self.first_reached[node.number] = self.nreached
        self.nreached += 1
        return True

    def use(self, child, hpa, rights, width):
        """Add what the entry of `width` bytes at `hpa` leads to now. ACCESSED in `rights`: its table is in a read-only slot."""
        entry: u64 = self.memory.value(hpa, width)
        self.follow(child, entry, rights)
        if self.unguarded.is_other(hpa, width):
            for value in self.unguarded.before(hpa, width, entry):
                self.follow(child, value, rights)

    def follow(self, child, entry, rights):
        """Add what an entry of this value leads to."""
        if rights & ACCESSED:
            entry |= ACCESSED | DIRTY
        if not entry & ACCESSED or not entry & 1:
            return
        mode: Paging
        steps: tuple
        for mode, steps in self.views:
            step: Step = steps[child.step]
            fault, address, below, leaf = use_entry(mode, step, entry, rights & ALL)
            if fault:
                continue
            if leaf:
                for page in child.pages:
                    self.add(page, address, step.shift, below)
            else:
                self.visit(child.below, address, below)

    def add(self, watched, page, shift, rights):
        """A translation of a watched page."""
        at: cython.int = self.first_leaf[watched]
        while at != END:
            if self.leaves[at].page == page and self.leaves[at].rights == rights and self.leaves[at].shift == shift:
                return
            at = self.leaves[at].next
        self.leaves = cython.cast(LeafPtr, with_room(self.leaves, self.nleaves, cython.address(self.leaf_room), cython.sizeof(Leaf)))
        new: LeafPtr = cython.address(self.leaves[self.nleaves])
        new.page, new.rights, new.shift, new.watched, new.next = page, rights, shift, watched, self.first_leaf[watched]
        self.first_leaf[watched] = self.nleaves
        self.nleaves += 1

    def entries_changed(self, hpa, size):
        """Guest memory changed: entries that lie there lead to something new. Returns how many uses that concerns."""
        width: cython.int = self.mode.entry_size
        if self.mode.levels == 3 and self.tlb.nested:
            self.visit_pdptes()  # no registers hold them, so a store to one counts at once
        first: u64 = hpa & ~cython.cast(u64, width - 1)
        count: cython.int = 0
        k: cython.int
        for k in range(self.nuses):  # not those that are come to by this
            used: Use = self.uses[k]
            if first <= used.hpa < hpa + size:
                self.use(self.shape.children[used.child], used.hpa, used.rights, width)
                count += 1
        return count

    # --- what is asked

    def tables(self) -> set[int]:
        """Where the tables lie that have been reached."""
        return {self.reached[k].table for k in range(self.nreached)}

    def entries(self) -> set[int]:
        """The host addresses of the entries that count."""
        return {self.uses[k].hpa for k in range(self.nuses)}

    def members(self, watched: int, only_global: bool = False) -> Iterator[Translation]:
        """The translations of a watched page, by its number."""
        at: cython.int = self.first_leaf[watched]
        while at != END:
            if not only_global or self.leaves[at].rights & GLOBAL:
                yield Translation(self.leaves[at].page, self.leaves[at].shift, self.leaves[at].rights)
            at = self.leaves[at].next

    def leads(self, watched, gva, first, pages, only_global):
        """A translation of a watched page leads to one of these guest pages."""
        at: cython.int = self.first_leaf[watched]
        while at != END:
            leaf: LeafPtr = cython.address(self.leaves[at])
            if (address_in(leaf, gva) >> 12) - first < pages and (not only_global or leaf.rights & GLOBAL):
                return True
            at = leaf.next
        return False

    def lets(self, watched, gva, access, ac, hpa, only_global):
        """A translation of a watched page lets the access through to `hpa`. Where the supervisor may write without W, Linux makes
        of such a user page a supervisor's, so that neither SMAP nor SMEP is asked."""
        at: cython.int = self.first_leaf[watched]
        while at != END:
            leaf: LeafPtr = cython.address(self.leaves[at])
            at = leaf.next
            lifted: cython.bint = ac or (not self.mode.wp and not self.strict and not leaf.rights & WRITE)
            if (only_global and not leaf.rights & GLOBAL) or not self.mode.permits(leaf.rights, access, lifted):
                continue
            gpa: u64 = address_in(leaf, gva)
            clean: cython.bint = access & WRITE and not (leaf.rights & DIRTY and self.memory.stores(gpa))
            if not clean and self.memory.frame(gpa) == hpa:
                return True
        return False


@cython.cfunc
@cython.exceptval(check=False)
def address_in(leaf: LeafPtr, gva: u64) -> u64:
    """What a watched address leads to by one of its translations."""
    return leaf.page | gva & ((cython.cast(u64, 1) << leaf.shift) - 1)
