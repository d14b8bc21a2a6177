# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What comes from elsewhere: memslots, the host's own mapping, dirty logs, another vCPU in the middle of a fault, devices."""

from functools import reduce
from operator import or_

from shadowmmu.check.fuzz.guest_operations import GuestOperations
from shadowmmu.check.fuzz.operations import (
    ALIAS,
    MOVE_PAGE,
    PAGE,
    TABLE_FRAMES,
    TABLES,
    Kind,
    Op,
)
from shadowmmu.check.fuzz.race import Elsewhere, Race
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import ADDRESS

SHADOWS_NOTHING = 0x40080
"""Of a role: a direct page, or one that a shorter NPT's root hangs below."""


class HostOperations(GuestOperations):
    """The operations of all others."""

    def _slot(self, op: Op) -> str:
        slot, first, pages, flags = op[2:]
        had = self.slots.slots.get(slot)
        if slot == ALIAS and not self.alias:
            return "not now"
        if had and pages and (had[1:3] != (pages, self.slots.host_of(slot, first)) or (had[3] ^ flags) & 1):  # it must be deleted first
            return "not now"
        before, after = range(had[0], had[0] + had[1]) if had else range(0), range(first, first + pages)
        if self._holds_pdpt(before, after) or self._brings_hidden(before, after):
            return "not now"
        self.slots.set(slot, first, pages, flags)
        if not (had and had[3] & flags & 2 and pages):
            self.oracle.written.difference_update(before)
            self._forget_dirty(slot)
        elif had[0] != first:
            self.oracle.written = {gfn + first - had[0] if gfn in before else gfn for gfn in self.oracle.written}
        self.emulated = [False, False]
        self.oracle.memory_changed()
        return "nothing" if not had and not pages else "deleted" if not pages else "changed" if had else "made"

    def _holds_pdpt(self, before: range, after: range) -> bool:
        """A PAE guest's CR3 would lead to no memory. Its PDPTEs stand in registers, so that it gets no fault: it is retried for ever."""
        tables = [tlb.cr3 >> 12 for tlb in self.oracle.vcpus if tlb.mode.levels == 3]
        return not self.nested and any(gfn in before and gfn not in after for gfn in tables)

    def _filled_from(self, index: int) -> list[int]:
        """The tables that a bare root is filled with at its load; of an NPT's PDPTE all is taken for the address."""
        tlb = self.oracle.vcpus[index]
        if tlb.mode.levels != 3 or not ROOT_DESIGNS[self.setup.roots].bare:
            return []
        at = tlb.cr3 & (ADDRESS | 0xFE0)
        pdptes = [self.slots.peek(at + 8 * i, 8) or 0 for i in range(4)] if self.nested else tlb.pdptes
        return [p & -PAGE if self.nested else p & ADDRESS for p in pdptes if p & 1]

    def _brings_hidden(self, before: range, after: range) -> bool:
        """A PDPTE that led outside memory was left out of a bare root, and stays so when memory comes there: Linux ends the next
        access through it with an error to user space (docs/kernel-quirks.md)."""
        tables = [table >> 12 for index in (0, 1) for table in self._filled_from(index)] if self.hides_pdpte else []
        return any(gfn in after and gfn not in before for gfn in tables)

    def _swap(self, op: Op) -> str:
        """Pages of zeroes stay away until they are touched, others come back with their content."""
        outside = {hpa >> 12 for hpa in self.oracle.unguarded.outside[4]}  # known by host address: these do not move
        pages = [
            g for g in range(op.a, op.a + op.b) if self.slots.may_store(g * PAGE) and (self.slots.host(g * PAGE) or 0) >> 12 not in outside
        ]
        for gfn in pages:
            gpa, host = gfn * PAGE, self.slots.host_page(gfn) or 0
            old = (self.slots.host(gpa) or 0) >> 12
            data = self.vm.read_host(old * PAGE, PAGE)
            self.vm.set_host_page_level((host & -512) * PAGE, 512 * PAGE, 1)
            self.vm.unmap_hva(host * PAGE, PAGE)
            self.slots.forget()
            dirty = old in self.oracle.dirty
            self.oracle.dirty.discard(old)
            if any(data):
                self.vm.write_guest(gpa, data)
                if dirty:
                    self.oracle.dirty.add((self.slots.host(gpa) or 0) >> 12)
            else:
                self.slots.absent.add(host)
        self.oracle.memory_changed()
        return "done" if pages else "nothing"

    def _protect(self, op: Op) -> str:
        host = self.slots.host_page(op.a)
        if host is None:
            return "nothing"
        self.vm.write_protect_hva(host * PAGE, PAGE, writable=bool(op.b))
        self.slots.protected.discard(host)
        if not op.b:
            self.slots.protected.add(host)
        self.slots.forget()
        self.oracle.memory_changed()
        return "writable" if op.b else "protected"

    def _zap_all(self, op: Op) -> str:
        self.vm.zap_all_fast()
        return "done"

    def _forget_dirty(self, slot: int) -> None:
        """A new log begins."""
        first, pages, _, _ = self.slots.slots.get(slot, (0, 0, 0, 0))
        self.oracle.written = {gfn for gfn in self.oracle.written if not first <= gfn < first + pages}
        gone = self.slots.with_frames(self.oracle.dirty, first, pages)
        self.oracle.dirty -= {(self.slots.host(gfn * PAGE) or 0) >> 12 for gfn in gone}

    def _is_dirty(self, gfn: int) -> bool:
        """It was written: as far as it is known by which gfn, if the frame has several."""
        frame = (self.slots.host(gfn * PAGE) or 0) >> 12
        return gfn in self.oracle.written if frame in self.oracle.aliased else frame in self.oracle.dirty

    def _dirty_pages(self, first: int, pages: int) -> list[int]:
        """Which of these pages are."""
        by_gfn = (gfn for gfn in self.oracle.written if first <= gfn < first + pages)
        maybe = {*self.slots.with_frames(self.oracle.dirty, first, pages), *by_gfn}
        return sorted(gfn for gfn in maybe if self._is_dirty(gfn))

    def _read_log(self, slot: int) -> int:
        """A bit for each dirty page; each address space has a log."""
        logs = (int.from_bytes(self.vm.get_dirty_log(slot, space), "little") for space in self.slots.spaces)
        return reduce(or_, logs)

    def _dirty(self, op: Op) -> str:
        if op.a not in self.slots.slots or not self.slots.slots[op.a][3] & 2:
            return "not logging"
        first, pages, _, _ = self.slots.slots[op.a]
        bitmap = self._read_log(op.a)
        for gfn in self._dirty_pages(first, pages):
            if not bitmap >> gfn - first & 1:
                raise Violation(f"dirty log of slot {op.a} misses gfn {gfn:#x}, which was written")
        for space in self.slots.spaces if self.manual_log else ():
            self.vm.clear_dirty_log(op.a, 0, pages, bitmap.to_bytes((pages + 63) // 64 * 8, "little"), space)
        if again := self._read_log(op.a):
            raise Violation(f"dirty log of slot {op.a} is not clear behind its reading: {again.bit_count()} pages are dirty")
        self._forget_dirty(op.a)
        return "some" if bitmap else "none"

    def _race(self, op: Op) -> str:
        """The store comes between walk and lock. It is one that nobody traps: of a table that is write-protected the storing vCPU
        would have to enter the MMU, whose lock is taken, so there the store comes when the access is over."""
        tlb, how, size = self.oracle.vcpus[op.vcpu], op.b & 0xFFF, op.b >> 16
        gpa, value = op.c & -size, op.d & (1 << 8 * size) - 1
        hpa, access = self.slots.host(gpa), Op(Kind.ACCESS, op.vcpu, op.a, how, 1, op.d & 0xFF)
        if hpa is None or not self.slots.writable(gpa) or not Race.shows(self.memory.read(hpa, size), value):
            return "not now"
        self.cpus[op.vcpu].enter()  # loading a root may protect tables, and is done before a fault
        if any(sp.gfn == gpa >> 12 and not (sp.unsync or sp.special or sp.direct) for sp in self.vm.shadow_pages()):
            outcome = self._access(access)
            self._poke(Op(Kind.POKE, 1 - op.vcpu, gpa, size, value))
            return f"waited, {outcome}"
        race = Race(tlb, self.memory, hpa, size)
        self.vm.arm_interleave(1 + (op.b >> 12 & 1), gpa, value, size)
        self.cpus[op.vcpu].observer = race
        try:
            outcome = self._access(access)
        finally:
            self.cpus[op.vcpu].observer = tlb
            self.vm.arm_interleave(0, 0, 0, 1)
        return f"won, {outcome}" if race.fired else "not reached"

    def _meanwhile(self, op: Op) -> str:
        """Between walk and lock all pages become obsolete, as when a memslot changes elsewhere, or the host moves a page."""
        how, event = op.b & 0xFFF, op.b >> 16
        cpu, tlb = self.cpus[op.vcpu], self.oracle.vcpus[op.vcpu]
        host = self.slots.host_page(op.c)
        if event == MOVE_PAGE and (host is None or tlb.l2 is not None or not self._may_move(op.c)):
            return "not now"
        cpu.enter()  # the root is loaded before a fault
        before = self.slots.host(op.c * PAGE) or 0
        self.vm.arm_interleave(1, op.c * PAGE, 0, 1, event)
        cpu.observer = Elsewhere(tlb, lambda: self._see_moved(host, before))
        try:
            outcome = self._access(Op(Kind.ACCESS, op.vcpu, op.a, how, 1, op.d & 0xFF))
        finally:
            cpu.observer = tlb
            self.vm.arm_interleave(0, 0, 0, 1)
        return f"{'moved' if event == MOVE_PAGE else 'obsolete'}, {outcome}"

    def _may_move(self, gfn: int) -> bool:
        """No table, neither of a guest's nor one that something was stored to from outside: entries are known by host address."""
        frame = (self.slots.host(gfn * PAGE) or 0) >> 12
        spaces = [space for tlb in self.oracle.vcpus for space in tlb.spaces.values()]
        if gfn <= TABLES or gfn in TABLE_FRAMES or any(hpa >> 12 == frame for hpa in self.oracle.unguarded.outside[4]):
            return False
        return not any(hpa >> 12 == frame for space in spaces for hpa in space.entries())

    def _see_moved(self, host: int | None, before: int) -> None:
        """Guest memory is where the host has it now; what was written to the old frame is not in a log for the new one twice."""
        now = self.vm.host_page(host * PAGE) if host is not None else None
        if now is None or now == before:
            return
        self.slots.forget()
        if before >> 12 in self.oracle.dirty:
            self.oracle.dirty.discard(before >> 12)
            self.oracle.dirty.add(now >> 12)
        self.oracle.memory_changed()

    def _outside(self, op: Op) -> str:
        """Not into an NPT's PDPTEs: those are read again by each walk, and the oracle knows whole walks only (`_settle_pdptes`)."""
        gpa, size, value = op[2:5]
        gpa &= -size
        hpa = self.slots.host(gpa)
        pdptes = any(self.nested and tlb.mode.levels == 3 and (gpa ^ tlb.cr3) & ~0xFFF == 0 for tlb in self.oracle.vcpus)
        if hpa is None or pdptes or not self.slots.writable(gpa):
            return "not now"
        self.oracle.store_from_outside(hpa, size, lambda: self.memory.write(hpa, size, value & (1 << 8 * size) - 1))
        return "stored"

    def _host(self, op: Op) -> str:
        if op.a == 0:
            self.vm.set_shadow_pages(op.b)
            return "limits shadow pages"
        if op.a == 1:
            self.vm.reschedule(op.b)
            return "wants the CPU"
        if op.a == 4:
            return self._unprotect(op.b)
        host = self.slots.host_page(op.b)
        if host is None:
            return "nothing"
        if op.a == 2:
            self.vm.invalidate_hva(host * PAGE, PAGE)
            return "changes its tables"
        self.vm.age_hva(host * PAGE, PAGE)
        return "looks what is in use"

    def _unprotect(self, gfn: int) -> str:
        if not self.vm.unprotect_page(gfn):
            return "finds it shadowed nowhere"
        if any(page.gfn == gfn and not (page.special or page.role & SHADOWS_NOTHING or page.obsolete) for page in self.vm.shadow_pages()):
            raise Violation(f"I8: gfn {gfn:#x} is no longer to be shadowed, and still is")
        return "stops shadowing"
