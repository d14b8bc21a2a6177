# SPDX-License-Identifier: GPL-2.0-only
"""Oracle and audit on a replayed VM: is what the captured kernel did, and so the engine, also right?

A replay holds the engine against the kernel. Here the state that both have is held against the guest's own tables, by rules from
the manuals: what the guest is given upon each fault and each walk of the emulator, and, whenever it says something, where every
address that its programme names leads for each kind of access. Not judged: guests on nested paging, and, while user space takes the
host's right to write away or has written to a table itself, what follows from that. Nor is it from
the moment that a strict audit reports what Linux is known to do wrong.
"""

from __future__ import annotations

from typing import TypeVar

from shadowmmu import Outcome
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.markers import Mark, parse
from shadowmmu.check.audit import audit
from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.oracle import Oracle
from shadowmmu.check.oracle.virtual_tlb import VirtualTlb
from shadowmmu.check.replayed.inputs import ControlRegister, DirtyLog, Fault, Inject, Input, Invlpg, Translate, WriteEmulated
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.path import path
from shadowmmu.hardware.walk import FETCH, USER, WRITE, features_of
from shadowmmu.x86.control import Cr4
from shadowmmu.x86.pte import Pte

T = TypeVar("T")
ACCESS = WRITE | USER | FETCH
PAGE = 4096
ABSENT = 1 << 60
"""Where pages lie that the host has not given yet: they read as zeroes."""
MARK = 1 << 51


class CapturedMemory(GuestMemory):
    """The memslots of a replay, as the oracle looks at them. It gives no page a frame."""

    def __init__(self, side: ReplayedVm) -> None:
        self.side = side
        self.absent: set[int] = set()
        """Host addresses (of the VMM) of pages that were looked at and have no frame."""

    def host(self, gpa: int) -> int | None:
        hva = self.side.host.hva(gpa)
        if hva is None:
            return None
        page = self.side.vm.host_page(hva & -PAGE)
        if page is None:
            self.absent.add(hva & -PAGE)
            return ABSENT | hva
        return int(page) | gpa % PAGE

    def writable(self, gpa: int) -> bool:
        host = self.side.host
        return any(base <= gpa < base + size and number not in host.readonly for number, (base, size, _) in host.live.items())

    def read(self, hpa: int, size: int) -> int:
        return 0 if hpa & ABSENT else int.from_bytes(self.side.vm.read_host(hpa, size), "little")

    def shared(self) -> set[int]:
        """gfns whose memory another gfn has, too: the MMU does not see what is stored through that one."""
        owners: dict[int, list[int]] = {}
        for base, size, offset in self.side.host.live.values():
            for page in range(size // PAGE):
                owners.setdefault(offset // PAGE + page, []).append(base // PAGE + page)
        return {gfn for gfns in owners.values() if len(gfns) > 1 for gfn in gfns}

    def arrivals(self) -> bool:
        """Whether a page that was absent has a frame by now."""
        arrived = {hva for hva in self.absent if self.side.vm.host_page(hva) is not None}
        self.absent -= arrived
        return bool(arrived)


class Untold:
    """Guest addresses of entries that may be stored to without the MMU being told, for the audit."""

    def __init__(self, shared: set[int]) -> None:
        self.entries: set[int] = set()
        """Those that user space has written."""
        self.shared = shared
        """gfns whose memory another gfn has, too."""

    def __contains__(self, at: object) -> bool:
        return at in self.entries or (isinstance(at, int) and at >> 12 in self.shared)


class Judge:
    """Watches one VM of a replay. Raises a violation."""

    def __init__(self, side: ReplayedVm, capture: Capture) -> None:
        self.side = side
        self.memory = CapturedMemory(side)
        watched = {op.va & -PAGE for op in (*capture.guest.ops, *capture.guest.l2_ops) if op.va}
        watched |= {mark["va"] & -PAGE for mark in map(parse, capture.markers) if mark.action == "stored"}
        self.oracle = Oracle(self.memory, watched, len(side.vm.vcpus), features_of(side.vm.config))
        self.judges = not capture.setup.npt and bool(watched)
        """Whether the oracle does, which watches some addresses; the audit always."""
        self.untold = Untold(self.oracle.unguarded.gfns)
        self.broken: set[str] = set()
        """Rules that Linux is known to break, and has broken here: where addresses lead is not judged from then on."""
        self._guest_mode = False
        side.judge = self
        for cpu in side.cpus:
            cpu.stored = self._stored

    @property
    def _tlb(self) -> VirtualTlb:
        return self.oracle.vcpus[self.side.vcpu.id]

    def judged(self, given: Input[T], side: ReplayedVm) -> T:
        """Give an input to the VM, under the eyes of the oracle."""
        if not self.judges:
            return given(side)
        if isinstance(given, Fault | Translate):
            self._before_walk(given)
        value = given(side)
        if isinstance(given, Fault | Translate):
            self._after_walk(given, value)
        elif isinstance(given, Invlpg):
            self._tlb.invlpg(given.address)
        elif isinstance(given, WriteEmulated):
            self._tlb.emulated_store(given.gpa, len(given.data))
        elif isinstance(given, DirtyLog) and isinstance(value, bytes):
            self._read_log(given.slot, value)
        elif not isinstance(given, Inject) and not (isinstance(given, ControlRegister) and not value):
            self._registers(given)
        self._look_at_memory()
        return value

    def _before_walk(self, given: Fault | Translate) -> None:
        """What a walk of the guest's tables will find, and leave there."""
        address, code = (given.address, given.code) if isinstance(given, Fault) else (given.gva, given.access)
        self._tlb.before_walk(address, code & ACCESS, False, isinstance(given, Translate))

    def _after_walk(self, given: Fault | Translate, value: object) -> None:
        vcpu, tlb = self.side.vcpu, self._tlb
        self._look_at_memory()
        if vcpu.cr4 & Cr4.SMAP or self.side.host.protected:  # EFLAGS.AC is not told, nor what the host refuses to mark
            self.oracle.memory_changed()
        elif isinstance(value, Outcome):
            tlb.after_walk(value.name, None, vcpu.exception if value is Outcome.INJECT else None)
        else:
            tlb.after_walk("TRANSLATED", value if isinstance(value, int) else None, None if value is not None else vcpu.exception)

    def _registers(self, given: object) -> None:
        """What was done may have changed them: the tables are looked at anew, and a load of CR3 forgets."""
        vcpu, tlb = self.side.vcpu, self._tlb
        written = given if isinstance(given, ControlRegister) and given.number == 3 else None
        cr3 = vcpu.cr3 if written is None else written.value
        now = vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer
        if now == (tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer) and not isinstance(given, ControlRegister):
            return
        tlb.load(vcpu.cr0, cr3, vcpu.cr4, vcpu.efer, mov_cr3=cr3 != tlb.cr3 or written is not None)
        if vcpu.guest_mode != self._guest_mode:
            self._guest_mode = vcpu.guest_mode
            tlb.flush()

    def _read_log(self, slot: int, log: bytes) -> None:
        """I15: each page that was stored to since the last log is in it."""
        base, size, offset = self.side.host.live[slot]
        for number in range(size // PAGE):
            page = self.side.vm.host_page(offset + number * PAGE)
            if page is None or page >> 12 not in self.oracle.dirty:
                continue
            if not log[number >> 3] >> (number & 7) & 1:
                raise Violation(f"dirty log of slot {slot}: gfn {(base >> 12) + number:#x} was written, and is not in it")
            self.oracle.dirty.discard(page >> 12)

    def _look_at_memory(self) -> None:
        if self.memory.absent and self.memory.arrivals():
            self.oracle.memory_changed()

    def _stored(self, hpa: int, size: int) -> None:
        self.oracle.stored(hpa, size)

    def host_acts(self, mark: Mark) -> None:
        """User space has changed memory or memslots."""
        if mark.action == "slot":
            self.oracle.dirty.clear()  # a log may begin
        if mark.action == "poke":
            self._outside(mark["gpa"], mark["len"])
        elif mark.action == "madvise_dontneed":
            self._outside(mark["gpa"], mark["size"])
        if mark.action in ("slot", "madvise_dontneed", "mprotect"):
            self.oracle.unguarded.gfns |= self.memory.shared()
            self.oracle.memory_changed()

    def _outside(self, gpa: int, size: int) -> None:
        """Memory is other than it was, of which the MMU is not told. If tables in use lie there, it goes on with what they were."""
        self.untold.entries.update(range(gpa & -4, gpa + size, 4))
        spaces = (space for tlb in self.oracle.vcpus for space in tlb.spaces.values())
        used = {table >> 12 for space in spaces for table in space.tables()}
        self.judges &= not any(gpa >> 12 <= table <= gpa + size - 1 >> 12 for table in used)
        hpa = self.memory.host(gpa)
        if hpa is not None and size <= 8:
            self.oracle.stored(hpa, size)
            self.oracle.dirty.discard(hpa >> 12)  # no log tells of what user space writes

    def look(self) -> None:
        """The guest has just left: where its addresses lead now, and whether all structures are right."""
        wrong = audit(self.side.vm, untold=self.untold)
        if wrong:
            raise Violation(f"audit: {wrong[0]}")
        if not self.judges or not self.side.cpu.root:
            return
        self.broken |= {violation.invariant for violation in audit(self.side.vm, strict=True)}
        for page in () if self.broken else self.oracle.watched:
            self.look_at(page << 12)

    def look_at(self, gva: int) -> None:
        """Each access that the shadow tables let through, the guest has allowed."""
        cpu, tlb = self.side.cpu, self._tlb
        if gva >> 32 and tlb.mode.levels < 4:
            return
        rights = ~0
        for entry in path(lambda hpa, _size: int(cpu.vm.read_host_u64(hpa)), cpu.root, cpu.level, gva):
            if not entry.present or (entry.leaf and entry.value & MARK):
                return
            if not cpu.level == entry.level == 3:
                rights &= entry.value ^ int(Pte.NX)
            if entry.leaf:
                for access in _allowed(rights, bool(self.side.vcpu.cr4 & Cr4.SMEP)):
                    tlb.completed(gva, access, True, entry.address(gva))


def _allowed(rights: int, smep: bool) -> list[int]:
    """Kinds of accesses that entries with these rights in common (NX turned round) let through, CR0.WP being on in the CPU."""
    writes = [0, WRITE] if rights & Pte.WRITABLE else [0]
    kinds = writes + ([USER | kind for kind in writes] if rights & Pte.USER else [])
    if rights & Pte.NX:
        kinds += ([USER | FETCH] if rights & Pte.USER else []) + ([] if smep and rights & Pte.USER else [FETCH])
    return kinds
