# SPDX-License-Identifier: GPL-2.0-only
"""What all checks share: the VM, its live pages, what reverse lists were seen to name, and the violations found.

Inline in the .pxd, since they run for every entry: `is_listed`, `next_used`, `next_entry`.
"""

from typing import NamedTuple

import cython
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memset
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PteListDescPtr,
    ShadowPagePtr,
    host_pa,
    p_spte,
    p_u8,
    p_u64,
    sptep_to_sp,
    u64,
)
from cython.cimports.shadowmmu.engine.face.vm import Vm

from shadowmmu.engine.arena.role import describe_role

MAX_VIOLATIONS = 50


class Violation(NamedTuple):
    """One broken rule."""

    invariant: str
    """I1 to I18, or WARN for what the kernel warns of."""
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@cython.final
@cython.cclass
class Auditor:
    """An audit of one VM, passed from check to check; `found` is the list of violations so far. Then perhaps another of the same VM."""

    def __cinit__(self, vm: Vm, strict: bool, untold: object):
        self.vm = vm
        self.strict = strict
        self.kvm = vm.kvm
        self.untold = untold
        pages: u64 = self.kvm.npages_pool
        self.live = cython.cast(cython.pointer(ShadowPagePtr), malloc(pages * cython.sizeof(ShadowPagePtr)))
        self.listed = cython.cast(p_u64, malloc(pages * WORDS * cython.sizeof(u64)))
        self.held = cython.cast(cython.p_int, malloc(pages * cython.sizeof(cython.int)))
        self.seen = cython.cast(p_u64, calloc(pages * WORDS, cython.sizeof(u64)))
        self.descs = cython.cast(p_u64, calloc(self.kvm.ndesc // 64 + 1, cython.sizeof(u64)))
        if not (self.live and self.listed and self.held and self.seen and self.descs):
            raise MemoryError(f"no memory to audit {pages} shadow pages")

    def __dealloc__(self):
        free(self.live)
        free(self.listed)
        free(self.held)
        free(self.seen)
        free(self.descs)

    def begin(self, thorough: bool) -> None:
        """Nothing is known but, if not `thorough`, in which entries there was something."""
        self.thorough = thorough
        self.found = []
        self.nlive = self.ndescs = 0
        memset(self.descs, 0, (self.kvm.ndesc // 64 + 1) * cython.sizeof(u64))
        memset(self.leaves, 0, cython.sizeof(self.leaves))
        self.find_live()

    @cython.cfunc
    def find_live(self) -> object:
        """List the pages in existence, with nothing known of any. Only this looks at every header that was ever used."""
        i: u64
        for i in range(self.kvm.npages_carved):
            if self.kvm.pages[i].live:
                self.live[self.nlive] = cython.address(self.kvm.pages[i])
                self.nlive += 1
                memset(cython.address(self.listed[i * WORDS]), 0, WORDS * cython.sizeof(u64))
                if self.thorough:
                    memset(cython.address(self.seen[i * WORDS]), 0, WORDS * cython.sizeof(u64))
                self.held[i] = 0
        return None

    # --- words

    @cython.cfunc
    def say(self, id: object, text: object) -> cython.void:
        if len(self.found) < MAX_VIOLATIONS:
            self.found.append(Violation(id, text))

    @cython.cfunc
    def page_name(self, sp: ShadowPagePtr) -> object:
        return f"page {host_pa(self.kvm, sp.spt):#x} (gfn {sp.gfn:#x} {describe_role(sp.role)})"

    @cython.cfunc
    def entry_name(self, sp: ShadowPagePtr, index: cython.int) -> object:
        return f"entry {index:#x} = {sp.spt[index]:#x} of {self.page_name(sp)}"

    # --- reverse lists

    @cython.cfunc
    @cython.exceptval(check=False)
    def owner(self, sptep: p_spte) -> ShadowPagePtr:
        """The live page that holds an entry, or NULL, whatever the pointer is."""
        at: p_u8 = cython.cast(p_u8, sptep)
        if at < self.kvm.frames or at >= self.kvm.frames + ((self.kvm.low_frames + self.kvm.high_frames) << PAGE_SHIFT):
            return cython.NULL
        sp: ShadowPagePtr = sptep_to_sp(self.kvm, sptep)
        return sp if sp != cython.NULL and sp.live else cython.NULL

    @cython.cfunc
    @cython.exceptval(check=False)
    def mark(self, sp: ShadowPagePtr, index: cython.int) -> cython.bint:
        """A reverse list names this entry. False: one named it before."""
        word: p_u64 = cython.address(self.listed[(sp - self.kvm.pages) * WORDS + (index >> 6)])
        bit: u64 = cython.cast(u64, 1) << (index & 63)
        first: cython.bint = not word[0] & bit
        word[0] |= bit
        return first

    @cython.cfunc
    @cython.exceptval(check=False)
    def claim(self, desc: PteListDescPtr) -> cython.bint:
        """A reverse list has this descriptor (NULL: it needs none). False: it is none of the pool's, or another list has it."""
        if desc == cython.NULL:
            return True
        number: u64 = desc - self.kvm.descs
        if number >= self.kvm.ndesc:
            return False
        bit: u64 = cython.cast(u64, 1) << (number & 63)
        if self.descs[number >> 6] & bit:
            return False
        self.descs[number >> 6] |= bit
        self.ndescs += 1
        return True
