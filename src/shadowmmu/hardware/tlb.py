# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""TLB and paging-structure caches that keep everything the architecture lets them keep.

Entries stay until an invalidation that the manuals require (SDM 4.10.4, APM 5.5), so a forgotten flush shows as a
stale translation. Where the manuals leave a choice the caches keep more: INVLPG drops paging-structure entries only
on the path of its address (as INVVPID and, with EFER.TCE, AMD's INVLPG do). Eviction is always allowed: a seeded
`Random` may do some, which finds the bugs that retention hides.

A *tag* is what the CPU compares besides the address: ASID or VPID, and PCID, in one integer.

Each cached page and table is a row, with the entries that it was made of, and what of them has to stay as long as it is cached.
Compiled: the rows are looked through at each access, and at each VM entry. Inline in the .pxd: `holds`,
`add_source`.
"""

from random import Random

import cython
from cython.cimports.libc.stdlib import free, realloc

from shadowmmu.hardware.host_memory import HostMemory
from shadowmmu.hardware.walk import Paging, Translation, Walk


class Tlb:
    """The caches of one logical processor."""

    def __init__(self, random: Random | None = None) -> None:
        self.random = random

    def __dealloc__(self):
        free(self.pages.rows)
        free(self.tables.rows)

    def page(self, tag: int, gva: int) -> Translation | None:
        """The cached translation of `gva`. Of several sizes, any may be used (SDM 4.10.2.3): the smallest here."""
        found = self.find(tag, gva)
        return None if found == cython.NULL else Translation(found.address, found.shift, found.rights)

    def find(self, tag: int, gva: int) -> object:
        """The same as a row, or NULL. A page that every tag has comes after the tag's own."""
        found = cython.NULL
        for number in range(self.pages.count):
            row = cython.address(self.pages.rows[number])
            if not holds(row, tag, gva) or (found != cython.NULL and row.shift > found.shift):
                continue
            if found == cython.NULL or row.shift < found.shift or found.everywhere:
                found = row
        return found

    def resume(self, tag: int, gva: int, mode: Paging, way: Walk) -> bool:
        """Let the walk of `gva` start where a paging-structure cache has it already, at the lowest table. False: nowhere."""
        found = cython.NULL
        top = mode.steps[0]
        for number in range(self.tables.count):
            row = cython.address(self.tables.rows[number])
            if row.shift <= top.shift and holds(row, tag, gva) and (found == cython.NULL or row.shift < found.shift):
                found = row
        if found == cython.NULL:
            return False
        for at in range(len(mode.steps)):
            step = mode.steps[at]
            if step.shift < found.shift:
                way.resume(at, found.address, found.rights)
                return True
        return False

    def fill(self, tag: int, gva: int, mode: Paging, way: Walk) -> None:
        """Remember a successful walk: its leaf and the tables above (their A bits are set: SDM 4.10.2.2, 4.10.3.1)."""
        page = self.row(cython.address(self.pages), tag, gva, way.shift, way.rights & _GLOBAL != 0)
        page.address, page.rights = way.page, way.rights
        self.note(page, way, way.depth, mode, gva)
        for number in range(way.depth - 1):
            used = cython.address(way.used[number])
            step = mode.steps[used.step]
            table = self.row(cython.address(self.tables), tag, gva, step.shift, False)
            table.address, table.rights = used.address, used.rights & _ALL
            self.note(table, way, number + 1, mode, gva)
        if self.random is not None and self.random.random() < 1 / 32:
            self.forget(cython.address(self.pages) if self.random.random() < 0.5 else cython.address(self.tables), tag)

    def row(self, cache, tag, gva, shift, everywhere):
        """The row for what is to be cached: the one that there is, or a new one."""
        for number in range(cache.count):
            known = cython.address(cache.rows[number])
            same = known.everywhere if everywhere else known.tag == tag and not known.everywhere
            if same and known.shift == shift and known.key == gva >> shift:
                return known
        if cache.count == cache.room:
            more = cython.cast(CachedPtr, realloc(cache.rows, (2 * cache.room + 32) * cython.sizeof(Cached)))
            if more == cython.NULL:
                raise MemoryError("no memory for what the model CPU caches")
            cache.rows, cache.room = more, 2 * cache.room + 32
        new = cython.address(cache.rows[cache.count])
        cache.count += 1
        new.tag, new.key, new.shift, new.everywhere = tag, gva >> shift, shift, everywhere
        return new

    def note(self, row, way, depth, mode, gva):
        """What it was made of: the first `depth` entries of the walk; of a whole walk of PAE tables the PDPTE too.

        Of an entry there must stay: present, where it leads, and W if it was used. What may be executed, or is the user's, the guest
        takes away itself, and flushes itself (Linux changes such an entry in place: mmu_spte_update).
        """
        row.sources = 0
        if mode.levels == 3 and not way.resumed:
            at = way.root + (gva >> 27 & 0x18)
            add_source(row, at, way.tables.load(at, 8), KEEPS)
        for number in range(depth):
            add_source(row, way.used[number].pa, way.used[number].entry, KEEPS | way.rights & _WRITE)

    def stale(self, tag: int, memory: HostMemory) -> tuple[str, int, int, int, int] | None:
        """The first that is cached, serves `tag`, and is more than its entries in `memory` now allow: ("page" or "table", address,
        where the entry lies, what it was, what it is)."""
        found = self.first_stale(cython.address(self.pages), tag, memory, "page", False)
        if found is None:
            found = self.first_stale(cython.address(self.tables), tag, memory, "table", False)
        return found if found is not None else self.first_stale(cython.address(self.pages), tag, memory, "page", True)

    def first_stale(self, cache, tag, memory, kind, everywhere):
        for number in range(cache.count):
            row = cython.address(cache.rows[number])
            if row.everywhere != everywhere or not (everywhere or row.tag == tag):
                continue
            for k in range(row.sources):
                source = cython.address(row.made_of[k])
                now = memory.load(source.pa, 8)
                if (now ^ source.value) & source.mask:
                    return kind, row.key << row.shift, source.pa, source.value & source.mask, now & source.mask
        return None

    def invlpg(self, tag: int, gva: int, mode: Paging) -> None:
        """INVLPG, INVLPGA, INVVPID of one address; also what a #PF does (SDM 4.10.4.1)."""
        top = mode.steps[0]
        self.drop(cython.address(self.pages), tag, gva, 63)
        self.drop(cython.address(self.tables), tag, gva, top.shift)

    def drop(self, cache, tag, gva, highest):
        """What serves `tag` and holds the address, up to this size."""
        kept = 0
        for number in range(cache.count):
            row = cython.address(cache.rows[number])
            if row.shift > highest or not holds(row, tag, gva):
                if kept != number:
                    cache.rows[kept] = row[0]
                kept += 1
        cache.count = kept
        return

    def forget(self, cache, tag):
        """All of the tag but global pages."""
        kept = 0
        for number in range(cache.count):
            if cache.rows[number].everywhere or cache.rows[number].tag != tag:
                if kept != number:
                    cache.rows[kept] = cache.rows[number]
                kept += 1
        cache.count = kept
        return

    def load_cr3(self, tag: int) -> None:
        """MOV CR3 without bit 63: all of the tag but global pages."""
        self.forget(cython.address(self.pages), tag)
        self.forget(cython.address(self.tables), tag)

    def flush_all(self) -> None:
        """Everything of every tag: a new ASID, TLB_CONTROL, INVVPID of all contexts, a change of CR4.PGE."""
        self.pages.count = self.tables.count = 0
