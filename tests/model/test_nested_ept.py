# SPDX-License-Identifier: GPL-2.0-only
"""Shadow EPT against the manual: an L1 edits extended page tables at random while two L2s run on what the engine makes of them.

Whether an access of L2 may succeed, and what L1 is told if not, is decided by `hardware.walk.Ept`, which walks L1's tables
and knows nothing of the engine. VM entry invalidates (the engine syncs there, as for VMRUN), so an L2 that runs on may use
what L1's tables held at any moment since its entry.
"""

from __future__ import annotations

import struct
from random import Random

import pytest
from designs import every_design

from shadowmmu import Vm
from shadowmmu.check.audit import audit
from shadowmmu.hardware.host_memory import HostMemory
from shadowmmu.hardware.second_level import Ept, SecondLevelFault
from shadowmmu.hardware.walk import FETCH, GUEST_FINAL, GUEST_TABLE, PRESENT, RESERVED, USER, WRITE
from shadowmmu.x86.control import Cr0, Cr4, Efer

PAGE = 4096
TABLES = range(0x20, 0x34)  # gfns that L1 uses as tables, four for each level; the first four are roots
DATA = range(0x100, 0x140)
HOLE = range(0x900, 0x910)  # no memslot
INDICES = (0, 1, 2, 511)
WATCHED = sorted(
    {
        sum(i << 12 + 9 * n for n, i in enumerate(path))
        for path in ((0, 0), (1, 0), (2, 0), (511, 0), (0, 1), (1, 1), (2, 511), (0, 0, 1), (1, 0, 1))
    }
)
KINDS = {1: 0, 2: WRITE, 4: FETCH}  # rights of an EPT entry, and the access that needs each
LONG = {"cr0": int(Cr0.PE | Cr0.PG | Cr0.WP), "cr4": int(Cr4.PAE), "efer": int(Efer.NXE | Efer.LME | Efer.LMA)}
LIMIT = 12  # exits that one access may take
AD = 0x40


def error_code(qualification: int) -> int:
    """What KVM makes of an exit qualification (handle_ept_violation); a misconfiguration is RSVD alone."""
    if qualification < 0:
        return RESERVED
    code = (qualification & 1 and USER) | (qualification & 2 and WRITE) | (qualification & 4 and FETCH) | (qualification & 0x38 and PRESENT)
    return code | (GUEST_FINAL if qualification & 0x100 else GUEST_TABLE)


class Seen:
    """What one L2 may use: for each address the (right, L1 page) pairs that L1's tables gave at some moment since VM entry."""

    def __init__(self, eptp: int) -> None:
        self.eptp = eptp
        self.fresh = True  # no table has changed since
        self.pairs: dict[int, set[tuple[int, int]]] = {gpa: set() for gpa in WATCHED}


class L2:
    """One vCPU and the CPU below it: a walk of the shadow EPT, and a TLB that keeps what is not flushed."""

    def __init__(self, vm: Vm, index: int, random: Random) -> None:
        self.vcpu, self.random = vm.vcpus[index], random
        self.tlb: dict[tuple[int, int, int], int] = {}
        self.seen: Seen | None = None  # None: L1 runs

    def drop(self, gpa: int) -> None:
        """The CPU forgets what it knows of a page."""
        for key in [key for key in self.tlb if key[1] == gpa >> 12]:
            del self.tlb[key]


class Machine:
    """A VM with two vCPUs, its tables and the judge."""

    def __init__(self, seed: int, roots: str, levels: int, exec_only: bool) -> None:
        self.random, self.levels, self.exec_only = Random(seed), levels, exec_only
        self.vm = Vm(
            memory_mib=8, vcpus=2, tdp=True, vendor="vmx", roots=roots, host_levels=levels, shadow_pages=self.random.choice((0, 64))
        )
        self.host = HostMemory(self.vm.host_regions())
        self.l2s = [L2(self.vm, index, self.random) for index in range(2)]
        self.outcomes: dict[str, int] = {}
        for l2 in self.l2s:
            assert l2.vcpu.set_sregs(cr3=0, **LONG)
        for gfn in TABLES[: 4 * levels]:
            for index in INDICES:
                self.vm.write_guest(gfn * PAGE + 8 * index, struct.pack("<Q", self.entry(gfn)))

    def entry(self, table: int) -> int:
        """A random entry for a table (gfn): most lead on, some forbid, lead astray or are misconfigured."""
        random = self.random
        rights = random.choice((7,) * 30 + (3, 3, 5, 5, 1, 1, 4, 4, 0, 2, 6))
        marks = random.choice((0, 0x100, 0x300))
        level = self.levels - (table - TABLES[0]) // 4  # where the table is meant to be; links astray put it elsewhere too
        kind = random.random()
        if (kind < 0.9) == (level > 1):
            below = range(table // 4 * 4 + 4, table // 4 * 4 + 8) if level > 1 and kind < 0.85 else TABLES
            return random.choice(below) << 12 | rights | marks
        gfn = random.choice(DATA if random.random() < 0.9 else HOLE if random.random() < 0.5 else TABLES)
        memory_type = 2 if random.random() < 0.02 else 6
        large = level > 1 and random.random() < 0.8  # of the first pages, tables and all
        return (0x80 if large else gfn << 12) | memory_type << 3 | rights | marks

    # --- L1's tables, read as the manual says

    def ept(self, eptp: int) -> Ept:
        def read(gpa: int, size: int) -> int | None:
            return int.from_bytes(self.vm.read_guest(gpa, size), "little") if gpa < self.vm.memory_size else None

        return Ept(read, lambda *_: None, eptp, self.vm.maxphyaddr, self.exec_only)

    def see(self, seen: Seen) -> None:
        """Add what L1's tables give now."""
        tables = self.ept(seen.eptp)
        for gpa in WATCHED:
            for right, access in KINDS.items():
                try:
                    seen.pairs[gpa].add((right, tables.translate(gpa, access, False)))
                except SecondLevelFault:
                    continue

    def changed(self) -> None:
        for l2 in self.l2s:
            if l2.seen:
                l2.seen.fresh = False
                self.see(l2.seen)

    # --- the CPU

    def enter(self, l2: L2) -> Ept:
        """VM entry: the tables that the CPU walks."""
        entry = l2.vcpu.enter()
        if entry.flush_all:
            l2.tlb.clear()
        for gpa in entry.flush_gvas:
            l2.drop(gpa)
        ad = AD if l2.seen is None or l2.seen.eptp & AD else 0
        return Ept(self.host.read, self.host.write, entry.root | entry.level - 1 << 3 | 6 | ad, self.vm.host_maxphyaddr)

    def access(self, l2: L2, gpa: int, right: int, value: int | None = None) -> str:
        """One load, store or fetch of 8 bytes to its end."""
        vcpu = l2.vcpu
        for _ in range(LIMIT):
            tables = self.enter(l2)
            key = (tables.eptp, gpa >> 12, right)
            try:
                hpa = l2.tlb.get(key) if self.random.random() < 0.7 else None
                if hpa is None:
                    hpa = l2.tlb[key] = tables.translate(gpa & -PAGE, KINDS[right], False)
            except SecondLevelFault as fault:
                l2.drop(gpa)  # SDM 28.4.3.1
                outcome = vcpu.page_fault(gpa, error_code(fault.code)).name
                if outcome == "INJECT":
                    self.judge_fault(l2, gpa, right)
                    return "injected"
                if outcome == "EMULATE":
                    return self.emulate(l2, gpa, right, value)
                continue
            self.judge(l2, gpa, right, hpa)
            if value is not None:
                self.host.write(hpa | gpa & 0xFFF, 8, value)
            return "completed"
        raise AssertionError(f"no progress at {gpa:#x}")

    def emulate(self, l2: L2, gpa: int, right: int, value: int | None) -> str:
        """MMIO, or a store to a table that is shadowed."""
        if right == 4:
            return "from no memory"  # no machine emulates that
        l1_gpa = gpa if l2.seen is None else l2.vcpu.gva_to_gpa(gpa, KINDS[right])
        if l1_gpa is None:
            self.judge_fault(l2, gpa, right)
            return "injected when emulated"
        assert l2.seen is None or (right, l1_gpa & -PAGE) in l2.seen.pairs[gpa & -PAGE]
        if value is not None:
            l2.vcpu.write_emulated(l1_gpa, struct.pack("<Q", value))
        return "emulated"

    # --- the judge

    def judge(self, l2: L2, gpa: int, right: int, hpa: int) -> None:
        """The CPU is about to use `hpa`."""
        if l2.seen is None:
            assert hpa == self.hpa(gpa), f"L1's {gpa:#x} went to {hpa:#x}"
            return
        pages = {page for r, page in l2.seen.pairs[gpa & -PAGE] if r == right}
        assert hpa in {self.hpa(page) for page in pages}, f"L2's {gpa:#x} ({right}) went to {hpa:#x}, L1 allows {[hex(p) for p in pages]}"
        if l2.seen.fresh and l2.seen.eptp & AD:
            self.judge_marks(l2.seen.eptp, gpa, right)

    def judge_marks(self, eptp: int, gpa: int, right: int) -> None:
        """A translation in use has A in every entry of its path, and D in the leaf if it was written through (SDM 28.3.5)."""

        def write(pa: int, size: int, value: int) -> None:
            raise AssertionError(f"an entry at {pa:#x} should have become {value:#x} before {gpa:#x} was used")

        self.ept(eptp)._replace(write=write).translate(gpa, KINDS[right], False)

    def judge_fault(self, l2: L2, gpa: int, right: int) -> None:
        """The exit that L1 gets is the one its tables call for."""
        told = l2.vcpu.exception
        assert l2.seen is not None and told is not None and told.nested and told.cr2 & -PAGE == gpa & -PAGE
        with pytest.raises(SecondLevelFault) as fault:
            self.ept(l2.seen.eptp).translate(gpa, KINDS[right], False)
        if fault.value.code < 0:
            assert told.error_code & RESERVED
        else:
            assert told.exit_qualification & 0x3F == fault.value.code & 0x3F and not told.error_code & RESERVED

    def hpa(self, gpa: int) -> int | None:
        """Where the host has the page of an L1 physical address; None: no memslot."""
        return self.vm.host_address(gpa & -PAGE)

    # --- operations

    def to_l1(self, l2: L2) -> None:
        if l2.seen is not None:
            assert l2.vcpu.nested_vmexit()
            l2.seen = None

    def run(self, l2: L2) -> str:
        """L1 enters an L2, on one of its roots, with A/D flags or without."""
        self.to_l1(l2)
        eptp = self.random.choice(TABLES[:4]) << 12 | self.levels - 1 << 3 | 6 | self.random.choice((0, AD))
        assert l2.vcpu.nested_vmentry(cr0=1, cr3=0, cr4=0, efer=0, eptp=eptp, exec_only=self.exec_only)
        l2.seen = Seen(eptp)
        self.see(l2.seen)
        return "with A/D" if eptp & AD else "without A/D"

    def edit(self, l2: L2) -> str:
        """L1 stores to a table."""
        self.to_l1(l2)
        gpa = self.random.choice(TABLES) * PAGE + 8 * self.random.choice(INDICES)
        how = self.access(l2, gpa, 2, self.entry(gpa // PAGE))
        self.changed()
        return how

    def use(self, l2: L2) -> str:
        """L2 reads, fetches, or stores an entry: L1 may have given it a table."""
        if l2.seen is None:
            return f"entered {self.run(l2)}"
        right = self.random.choice((1, 1, 2, 2, 4))
        gpa = self.random.choice(WATCHED) + 8 * self.random.choice(INDICES)
        before = self.tables()
        how = self.access(l2, gpa, right, self.entry(self.random.choice(TABLES)) if right == 2 else None)
        if right == 2:
            self.changed()
        elif not l2.seen.eptp & AD:
            assert self.tables() == before, "A or D without A/D flags"
        return f"{['read', 'write', 'fetch'][right >> 1]} {how}"

    def tables(self) -> bytes:
        return self.vm.read_guest(TABLES[0] * PAGE, len(TABLES) * PAGE)

    def host_does(self, l2: L2) -> str:
        what = self.random.choice(("unmap", "zap", "recycle"))
        if what == "unmap":
            data = self.vm.read_guest(DATA[0] * PAGE, len(DATA) * PAGE)
            self.vm.unmap_hva(DATA[0] * PAGE, len(DATA) * PAGE)
            self.vm.write_guest(DATA[0] * PAGE, data)
        elif what == "zap":
            self.vm.zap_all_fast()
        else:
            self.vm.set_shadow_pages(self.random.choice((64, 128)))
        return what

    def step(self) -> None:
        l2 = self.random.choice(self.l2s)
        operation = self.random.choices((self.run, self.edit, self.use, self.host_does), (1, 2, 20, 0.3))[0]
        outcome = f"{operation.__name__}: {operation(l2)}"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


@every_design
@pytest.mark.parametrize("levels", [4, 5])
def test_random_ept(levels: int, roots: str) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(24):
        machine = Machine(seed, roots, levels, exec_only=bool(seed % 3))
        for number in range(220):
            machine.step()
            assert audit(machine.vm) == [] and machine.vm.bugs() == [], f"seed {seed}, operation {number}"
        for outcome, count in machine.outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    for kind in ("read", "write", "fetch"):
        assert outcomes[f"use: {kind} completed"] > 50 and outcomes[f"use: {kind} injected"] > 50, outcomes
    assert outcomes["edit: completed"] > 50 and outcomes["edit: emulated"] > 50 and outcomes["host_does: zap"] > 5, outcomes


class Sticky(dict[tuple[int, int, int], int]):
    """A TLB that does not hear of a flush of everything."""

    def clear(self) -> None:
        pass


def test_a_flush_not_done_is_seen() -> None:
    """The judge finds fault with a CPU that keeps what it was told to drop, and soon."""
    with pytest.raises(AssertionError, match="went to"):
        for seed in range(24):
            machine = Machine(seed, "special", 4, exec_only=True)
            for l2 in machine.l2s:
                l2.tlb = Sticky()
            for _ in range(220):
                machine.step()
