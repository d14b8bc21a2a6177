# SPDX-License-Identifier: GPL-2.0-only
"""The guest's own tables, looked at from outside: nothing here changes guest memory."""

from typing import NamedTuple

import cython
from cython.cimports.libc.stdint import uint8_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr, p_u8
from cython.cimports.shadowmmu.engine.face.nested_walk import NestedPath, follow_nested
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest
from cython.cimports.shadowmmu.hardware.walk import DONE, Paging, Tables, Walk

from shadowmmu.engine.face.types import PageFaultException
from shadowmmu.hardware.walk import features_of, paging
from shadowmmu.x86.pferr import Pferr

PAGE_SIZE = 4096
GUEST_FINAL, GUEST_PAGE = int(Pferr.GUEST_FINAL), int(Pferr.GUEST_PAGE)
PDPTE_LEVELS = cython.declare(cython.int, 3)
ADDRESS = cython.declare(uint64_t, 0x000FFFFFFFFFF000)


class Path(NamedTuple):
    """What a walk for one linear address reads; all addresses are physical for the guest that runs, L1 or L2."""

    entries: tuple[int, ...]
    """Where the entries lie, down to where the walk ends."""
    gpa: int | None
    """What it leads to; None: it faults."""


def paging_of(vcpu: Vcpu) -> Paging:
    """The paging mode of the guest that runs."""
    return paging(vcpu.cr0, vcpu.cr4, vcpu.efer, features_of(vcpu.vm.config))


def reported_fault(vcpu: object) -> PageFaultException:
    """The fault that the engine's last answer spoke of."""
    fault = vcpu.exception
    assert fault is not None
    return fault


def find_l1_physical(vcpu: KvmVcpuPtr, gpa: uint64_t, at: cython.pointer(uint64_t)) -> cython.bint:
    """Where an address that is physical for the guest that runs leads in L1's memory; False: nowhere."""
    path: NestedPath
    at[0] = gpa
    if not vcpu.nested.npt:
        return True
    follow_nested(vcpu, gpa, cython.address(path))
    at[0] = path.gpa
    return path.leads


def l1_physical(vcpu: Vcpu, gpa: uint64_t):
    """The same; None: nowhere."""
    at: uint64_t = 0
    return at if find_l1_physical(vcpu.vcpu, gpa, cython.address(at)) else None


def read_physical(vcpu: Vcpu, gpa: uint64_t, size: uint64_t):
    """Memory as the guest that runs sees it, within one page; None: there is none."""
    at: uint64_t = 0
    buffer: uint8_t[4096]
    if not find_l1_physical(vcpu.vcpu, gpa, cython.address(at)) or size > PAGE_SIZE - (at & (PAGE_SIZE - 1)):
        return None
    return buffer[:size] if read_guest(vcpu.vcpu.kvm, 0, at, buffer, size) else None


@cython.final
@cython.cclass
class OwnTables(Tables):
    """Entries in the memory of the guest that runs."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu

    def load(self, pa: uint64_t, size: cython.int) -> uint64_t:
        at: uint64_t = 0
        entry: uint64_t = 0
        vcpu: KvmVcpuPtr = self.vcpu.vcpu
        if not find_l1_physical(vcpu, pa, cython.address(at)):
            return 0
        return entry if read_guest(vcpu.kvm, 0, at, cython.cast(p_u8, cython.address(entry)), size) else 0


@cython.final
@cython.cclass
class GuestTables:
    """Those of the guest that `vcpu` runs."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu, self.way = vcpu, Walk(OwnTables(vcpu), marks=False)

    @cython.cfunc
    def paging(self) -> Paging:
        """Its mode, which seldom changes."""
        now: KvmVcpuPtr = self.vcpu.vcpu
        if self.mode is None or now.cr0 != self.cr0 or now.cr4 != self.cr4 or now.efer != self.efer:
            self.cr0, self.cr4, self.efer = now.cr0, now.cr4, now.efer
            self.mode = paging_of(self.vcpu)
        return self.mode

    @cython.cfunc
    def look(self, gva: uint64_t) -> object:
        """Walk for `gva`, rights left aside. Entries count down to where the walk ends, and the PDPTE, though it is a register."""
        i: cython.int
        mode: Paging = self.paging()
        cr3: uint64_t = self.vcpu.vcpu.cr3
        self.number = 0
        if not mode.levels:
            self.leads, self.gpa = True, gva & (ADDRESS | 0xFFF)
            return
        if mode.levels == PDPTE_LEVELS:
            self.entries[0], self.number = (cr3 & 0xFFFFFFE0) + (gva >> 27 & 0x18), 1
        self.leads = self.way.go(mode, cr3, gva, 0, True) == DONE
        for i in range(self.way.depth):
            self.entries[self.number] = self.way.used[i].pa
            self.number += 1
        if self.leads:
            self.gpa = self.way.page | (gva & ((cython.cast(uint64_t, 1) << self.way.shift) - 1))

    @cython.cfunc
    def uses(self, gpa: uint64_t) -> cython.bint:
        """The last walk has used the entry there."""
        i: cython.int
        found: cython.bint = False
        for i in range(self.number):
            found |= self.entries[i] == gpa
        return found


def path_of(vcpu: Vcpu, gva: uint64_t):
    """The walk for `gva`, rights left aside."""
    tables: GuestTables = GuestTables(vcpu)
    tables.look(gva)
    return Path(tuple([tables.entries[i] for i in range(tables.number)]), tables.gpa if tables.leads else None)


def locate_fault(vcpu: Vcpu, gva: int, gpa: int) -> tuple[int, int]:
    """(address, bit of EXITINFO1) of a fault that L1's tables raised for the page at `gpa` while `gva` was translated."""
    for entry in path_of(vcpu, gva).entries:
        if entry // PAGE_SIZE == gpa // PAGE_SIZE:
            return entry, GUEST_PAGE
    return gpa & -PAGE_SIZE | gva % PAGE_SIZE, GUEST_FINAL
