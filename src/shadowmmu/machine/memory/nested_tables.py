# SPDX-License-Identifier: GPL-2.0-only
"""The CPU's own walk through nested tables, with the guest's own above them: `hardware.second_level.walk_two_dimensions`, of the tables
that one vCPU runs on. A and D are set on the way."""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.state import p_u8
from cython.cimports.shadowmmu.engine.face.host_access import frame_memory
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.hardware.walk import DONE, Paging, Tables, Walk
from cython.cimports.shadowmmu.machine.memory.guest_tables import GuestTables
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Efer
from cython.cimports.shadowmmu.x86.pferr import Pferr

from shadowmmu.hardware.second_level import SecondLevelFault
from shadowmmu.hardware.walk import Features, paging


@cython.final
@cython.cclass
class HostTables(Tables):
    """Entries in host memory."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu

    def load(self, pa: uint64_t, size: cython.int) -> uint64_t:
        entry: uint64_t = 0
        at: p_u8 = frame_memory(self.vcpu.vcpu.kvm, pa, size)
        if at != cython.NULL:
            memcpy(cython.address(entry), at, size)
        return entry

    def store(self, pa: uint64_t, size: cython.int, value: uint64_t) -> object:
        memcpy(frame_memory(self.vcpu.vcpu.kvm, pa, size), cython.address(value), size)


@cython.final
@cython.cclass
class ThroughNested(Tables):
    """Entries in the memory of the guest that runs, which the nested tables lead to; they have the host's own paging."""

    def __init__(self, vcpu: Vcpu) -> None:
        five: cython.bint = vcpu.vm.host_levels == 5
        self.vcpu, self.host = vcpu, HostTables(vcpu)
        self.way = Walk(self.host)
        self.mode = paging(
            int(Cr0.PG),
            int(Cr4.PAE | Cr4.LA57 if five else Cr4.PAE),
            int(Efer.LME | Efer.NXE),
            Features(maxphyaddr=vcpu.vm.host_maxphyaddr),
        )

    @cython.cfunc
    def place(self, gpa: uint64_t, access: uint64_t, table: cython.bint) -> uint64_t:
        """Host physical; `table`: of a guest's table, which counts as written (APM 15.25.6). Every nested walk is a user's."""
        wanted: uint64_t = Pferr.USER | (Pferr.WRITE if table else access & (Pferr.WRITE | Pferr.FETCH))
        code: uint64_t = self.way.go(self.mode, self.vcpu.vcpu.mmu.root.hpa, gpa, wanted, False)
        if code != DONE:
            raise SecondLevelFault(gpa, code | (Pferr.GUEST_PAGE if table else Pferr.GUEST_FINAL))
        return self.way.page | (gpa & ((cython.cast(uint64_t, 1) << self.way.shift) - 1))

    def load(self, pa: uint64_t, size: cython.int) -> uint64_t:
        return self.host.load(self.place(pa, 0, True), size)

    def store(self, pa: uint64_t, size: cython.int, value: uint64_t) -> object:
        self.host.store(self.place(pa, Pferr.WRITE, True), size, value)


@cython.final
@cython.cclass
class NestedTables:
    """Those that `vcpu` runs on."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu, self.guest, self.nested = vcpu, GuestTables(vcpu), ThroughNested(vcpu)
        self.way = Walk(self.nested)

    @cython.cfunc
    def find(self, gva: uint64_t, access: uint64_t, place: cython.pointer(uint64_t)) -> cython.bint:
        """False: it ends in a #PF, which is the guest's own. Raises SecondLevelFault where the nested tables end it."""
        mode: Paging = self.guest.paging()
        kinds: uint64_t = access & (Pferr.WRITE | Pferr.USER | Pferr.FETCH)
        gpa: uint64_t = gva
        if mode.levels:
            self.code = self.way.go(mode, self.vcpu.vcpu.cr3, gva, kinds, self.vcpu.vcpu.ac and not access & Pferr.IMPLICIT)
            if self.code != DONE:
                return False
            gpa = self.way.page | (gva & ((cython.cast(uint64_t, 1) << self.way.shift) - 1))
        place[0] = self.nested.place(gpa, kinds, False)
        return True

    def walk(self, gva: uint64_t, access: uint64_t):
        """Host physical address, or the complement (~) of the error code of the #PF; raises SecondLevelFault."""
        place: uint64_t = 0
        return place if self.find(gva, access, cython.address(place)) else ~int(self.code)
