# SPDX-License-Identifier: GPL-2.0-only
"""An episode on EPT: an L1 of VMX edits extended page tables, two L2s without paging run on what the engine makes of them.

Whether an access of L2 may succeed, and what L1 is told if not, is decided by `hardware.second_level.Ept`, which walks L1's tables
and knows nothing of the engine. VM entry invalidates (the engine syncs there, as for VMRUN), so an L2 that runs on may use
what L1's tables held at any moment since its entry.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from shadowmmu.check.fuzz.ept_cpu import KINDS, EptCpu, L1Tables
from shadowmmu.check.fuzz.operations import (
    EPT,
    FRAMES,
    LARGE_FRAMES,
    PAGE,
    SLOTS,
    TABLES,
    USER_MIB,
    Kind,
    Op,
    Setup,
)
from shadowmmu.check.fuzz.slots import Slots, host_pages
from shadowmmu.engine.face.types import HostFault
from shadowmmu.hardware.host_memory import HostMemory, Violation
from shadowmmu.hardware.walk import FETCH, WRITE

LONG_MODE = {"cr0": 0x80010001, "cr3": 0, "cr4": 0x20, "efer": 0xD00}
"""What L1 runs with: PG, WP, PE; PAE; NXE, LMA, LME."""


class EptGuest:
    """`do` performs one operation and returns its outcome in a word."""

    untold: frozenset[int] = frozenset()
    """No store goes by the MMU."""

    def __init__(self, setup: Setup, make_vm: Callable[..., Any]) -> None:
        random = Random(f"guest {setup.seed}")
        self.setup = setup
        self.levels = random.choice([levels for mode, levels in EPT.items() if mode in setup.modes])
        self.exec_only = random.random() < 0.7
        """L1 has been promised entries that allow fetches alone."""
        self.vm = make_vm(
            memory_mib=0,
            user_mib=USER_MIB,
            vcpus=2,
            roots=setup.roots,
            kernel=setup.kernel,
            shadow_pages=random.choice((0, 0, 64)),
            vendor="vmx",
            tdp=True,
            host_levels=self.levels,
            nx_huge_pages=random.random() < 0.25,
            eager_page_split=random.random() < 0.5,
        )
        for first in LARGE_FRAMES[1:]:
            if random.random() < 0.6:
                self.vm.set_host_page_level(first * PAGE, 512 * PAGE, 2)
        self.memory = HostMemory(self.vm.host_regions())
        self.slots = Slots(self.vm, self.memory, host_pages(setup.seed))
        for slot, (first, pages) in SLOTS.items():
            self.slots.set(slot, first, pages, 0)
        self.slots.find_zeroes((FRAMES - 2) * PAGE)
        for page in range(TABLES + 1, FRAMES):
            self.vm.write_guest(page * PAGE, (page * 0x1001).to_bytes(4, "little") * 1024)
        self.dirty: set[int] = set()
        """Frames stored to since their log was read last."""
        tables = L1Tables(self.slots, self.vm.maxphyaddr, self.exec_only)
        self.cpus = [EptCpu(vcpu, self.memory, self.slots, tables, self.vm.host_maxphyaddr) for vcpu in self.vm.vcpus]
        for cpu in self.cpus:
            cpu.vcpu.set_sregs(**LONG_MODE)

    def do(self, op: Op) -> str:
        """Perform `op`; raises a violation."""
        perform = {
            Kind.ACCESS: self._access,
            Kind.POKE: self._poke,
            Kind.L1_STORE: self._l1_store,
            Kind.EPT_RUN: self._run,
            Kind.VMEXIT: self._exit,
            Kind.SWAP: self._swap,
            Kind.PROTECT: self._protect,
            Kind.ZAP_ALL: self._zap_all,
            Kind.SLOT: self._slot,
            Kind.DIRTY: self._dirty,
            Kind.HOST: self._host,
        }.get(Kind(op.kind))
        if perform is None:
            return "not on EPT"
        try:
            return perform(op)
        except HostFault:
            if not self.slots.protected:
                raise
            return "host fault"

    # --- what L1 and its L2 do

    def _access(self, op: Op) -> str:
        gpa, access, size, value = op[2:]
        cpu = self.cpus[op.vcpu]
        right = 4 if access & FETCH else 2 if access & WRITE else 1
        outcome, stored = cpu.access(gpa, right, size, value if access & WRITE else None)
        self._see_stored(stored)
        return f"{KINDS[right]} {'by L1 ' if cpu.seen is None else ''}{outcome}"

    def _see_stored(self, hpa: int | None) -> None:
        """Something was stored there: a table of L1's, perhaps."""
        if hpa is not None:
            self.dirty.add(hpa >> 12)
            for cpu in self.cpus:
                cpu.tables_changed()

    def _poke(self, op: Op) -> str:
        """L1's emulator stores to a physical address."""
        gpa, size, value = op[2:5]
        gpa = min(gpa, (gpa | 0xFFF) + 1 - size)
        if not self.vm.vcpus[op.vcpu].write_emulated(gpa, value.to_bytes(size, "little")):
            if self.slots.may_store(gpa):
                raise Violation(f"vcpu {op.vcpu}: emulated store to gpa {gpa:#x} refused, though it is memory")
            return "no memory"
        self._see_stored(self.slots.host(gpa))
        return "stored"

    def _l1_store(self, op: Op) -> str:
        """L1 leaves its L2, and stores through the host's own tables."""
        gpa, size, value = op[2:5]
        self.cpus[op.vcpu].leave()
        outcome, stored = self.cpus[op.vcpu].access(gpa & -size, 2, size, value)
        self._see_stored(stored)
        return outcome

    def _run(self, op: Op) -> str:
        return self.cpus[op.vcpu].run(op.a) if (op.a >> 3 & 7) + 1 == self.levels else "not now"

    def _exit(self, op: Op) -> str:
        return "left" if self.cpus[op.vcpu].leave() else "not now"

    # --- what the host does

    def _swap(self, op: Op) -> str:
        """It moves pages, none of zeroes."""
        moved = 0
        for gfn in range(op.a, op.a + op.b):
            host, frame = self.slots.host_page(gfn), (self.slots.host(gfn * PAGE) or 0) >> 12
            data = self.vm.read_host(frame * PAGE, PAGE) if host is not None and self.slots.may_store(gfn * PAGE) else b""
            if host is None or not any(data):
                continue
            self.vm.set_host_page_level((host & -512) * PAGE, 512 * PAGE, 1)
            self.vm.unmap_hva(host * PAGE, PAGE)
            self.slots.forget()
            self.vm.write_guest(gfn * PAGE, data)
            if frame in self.dirty:
                self.dirty.discard(frame)
                self.dirty.add((self.slots.host(gfn * PAGE) or 0) >> 12)
            moved += 1
        return "done" if moved else "nothing"

    def _protect(self, op: Op) -> str:
        """It takes or gives back its right to write a page; of tables it does not."""
        host = self.slots.host_page(op.a)
        if host is None or op.a <= TABLES:
            return "nothing"
        self.vm.write_protect_hva(host * PAGE, PAGE, writable=bool(op.b))
        (self.slots.protected.discard if op.b else self.slots.protected.add)(host)
        self.slots.forget()
        return "writable" if op.b else "protected"

    def _zap_all(self, op: Op) -> str:
        self.vm.zap_all_fast()
        return "done"

    def _slot(self, op: Op) -> str:
        """A dirty log begins or ends; slots stay where they are."""
        slot, first, pages, flags = op[2:]
        if slot not in SLOTS or (first, pages) != SLOTS[slot] or flags & 1:
            return "not now"
        if not self.slots.slots[slot][3] & flags & 2:
            self.dirty -= {frame for frame in self.dirty if frame in self._frames(slot)}
        self.slots.set(slot, first, pages, flags)
        return "changed"

    def _frames(self, slot: int) -> dict[int, int]:
        """Frame -> page of the slot's memory, as far as it was stored to."""
        first, pages, _, _ = self.slots.slots[slot]
        found = self.slots.with_frames(self.dirty, first, pages)
        return {(self.slots.host(gfn * PAGE) or 0) >> 12: gfn for gfn in found}

    def _dirty(self, op: Op) -> str:
        """I15."""
        if op.a not in SLOTS or not self.slots.slots[op.a][3] & 2:
            return "not logging"
        bitmap = int.from_bytes(self.vm.get_dirty_log(op.a), "little")
        for frame, gfn in self._frames(op.a).items():
            if not bitmap >> gfn - SLOTS[op.a][0] & 1:
                raise Violation(f"dirty log of slot {op.a} misses gfn {gfn:#x}, which was written")
            self.dirty.discard(frame)
        return "some" if bitmap else "none"

    def _host(self, op: Op) -> str:
        if op.a == 0:
            self.vm.set_shadow_pages(op.b)
            return "limits shadow pages"
        host = self.slots.host_page(op.b)
        if op.a not in (2, 3) or host is None:
            return "nothing"
        if op.a == 2:
            self.vm.invalidate_hva(host * PAGE, PAGE)
            return "changes its tables"
        self.vm.age_hva(host * PAGE, PAGE)
        for cpu in self.cpus:
            cpu.aged(self.slots.host(op.b * PAGE) or 0)
        return "looks what is in use"
