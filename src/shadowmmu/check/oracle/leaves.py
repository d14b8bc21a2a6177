# SPDX-License-Identifier: GPL-2.0-only
"""The translations that watched pages can have: which are kept when the guest flushes, and what they let through.

Compiled, as each access asks; the types stand in the .pxd. Inline there: `with_room`.
"""

from __future__ import annotations

from collections.abc import Iterator

import cython

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.hardware.walk import Translation


class Leaves:
    """For each watched page the translations that its address can have had: `first_leaf` is the first, and each names the next.

    `mode`: the paging mode in which an access is judged.
    """

    def __init__(self, memory: GuestMemory, watched: tuple[int, ...], strict: bool) -> None:
        self.memory, self.watched, self.strict = memory, watched, strict
        self.first_leaf = cython.cast(p_int, realloc(cython.NULL, (len(watched) + 1) * cython.sizeof(cython.int)))
        if self.first_leaf == cython.NULL:
            raise MemoryError("no memory for what the guest's tables allow")
        self.forget()

    def __dealloc__(self):
        free(self.leaves)
        free(self.first_leaf)

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

    # --- what is asked

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
