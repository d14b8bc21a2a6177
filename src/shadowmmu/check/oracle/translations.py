# SPDX-License-Identifier: GPL-2.0-only
"""The sets of translations that a bare CPU could hold with one PCID: what the virtual TLB of `guest_tlb` is made of.

Compiled, as it is gone through at each flush and each store to a table; its types stand in the .pxd.
"""

from __future__ import annotations

from typing import Protocol

import cython

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.leaves import Leaves
from shadowmmu.check.oracle.shape import Child, Node, Shape
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware.walk import Paging, Step, use_entry


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


class AddressSpace(Leaves):
    """The sets of one PCID. Global pages found here serve the other PCIDs too (SDM 4.10.2.4).

    * reached  for each node the tables, and the rights down to them
    * uses     the entries of those that are on the way of a watched address, as often as it was come to them
    """

    def __init__(self, tlb: Walked, watched: tuple[int, ...], cr3: int) -> None:
        super().__init__(tlb.memory, watched, tlb.strict)
        self.tlb, self.cr3, self.unguarded = tlb, cr3, tlb.unguarded
        self.mixed = False
        """It may hold translations of several CR3s: another was loaded with this PCID, keeping them."""
        self.start()

    def __dealloc__(self):
        free(self.reached)
        free(self.first_reached)
        free(self.uses)

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
