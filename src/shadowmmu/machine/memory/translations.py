# SPDX-License-Identifier: GPL-2.0-only
"""Translations that the CPU keeps, by page and access, as far as it delivers events. As in its TLB they live until it is flushed.

A place that two pages want is the later one's.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu


def drop_all(tlb: TlbPtr) -> cython.void:
    """The CPU's translations are flushed."""
    tlb.age += 1


def begin_delivery(tlb: TlbPtr, vcpu: KvmVcpuPtr) -> cython.void:
    """What was found on other tables, or with other rights, does not hold any longer; with nested paging nothing does: the guest may
    flush its own without an exit."""
    before: cython.pointer(WalksWith) = cython.address(tlb.walked_with)
    same: cython.bint = before.root == vcpu.mmu.root.hpa and before.cr0 == vcpu.cr0 and before.cr4 == vcpu.cr4
    if same and before.efer == vcpu.efer and before.ac == vcpu.ac and not vcpu.kvm.tdp:
        return
    drop_all(tlb)
    before.root, before.cr0, before.cr4 = vcpu.mmu.root.hpa, vcpu.cr0, vcpu.cr4
    before.efer, before.ac = vcpu.efer, vcpu.ac


def place_for(tlb: TlbPtr, page: uint64_t, access: uint64_t) -> TranslationPtr:
    """Where a translation is kept, if it is."""
    return cython.address(tlb.kept[(page ^ page >> 8 ^ access ^ access >> 48) & (PLACES - 1)])


def is_kept(tlb: TlbPtr, found: TranslationPtr, page: uint64_t, access: uint64_t) -> cython.bint:
    return found.age == tlb.age and found.page == page and found.access == access


def keep_place(tlb: TlbPtr, page: uint64_t, access: uint64_t, place: uint64_t) -> cython.void:
    found: TranslationPtr = place_for(tlb, page, access)
    found.page, found.access, found.place, found.age = page, access, place, tlb.age


@cython.final
@cython.cclass
class Translations:
    """Of one CPU."""

    def __cinit__(self):
        self.tlb.age = 1
        self.tlb.walked_with.cr0 = 0  # with which no CPU walks shadow tables
        self.tlb.walked_with.root = 0

    def begin(self, vcpu: Vcpu):
        """A new delivery."""
        begin_delivery(cython.address(self.tlb), vcpu.vcpu)

    def fault_again(self):
        """The next delivery is to begin without any."""
        self.tlb.walked_with.root = 0

    def clear(self):
        drop_all(cython.address(self.tlb))

    def find(self, page: uint64_t, access: uint64_t):
        """The place of a linear page, if one is kept."""
        found: TranslationPtr = place_for(cython.address(self.tlb), page, access)
        return found.place if is_kept(cython.address(self.tlb), found, page, access) else None

    def keep(self, page: uint64_t, access: uint64_t, place: uint64_t):
        keep_place(cython.address(self.tlb), page, access, place)
