# SPDX-License-Identifier: GPL-2.0-only
"""The model CPU on hand-made shadow tables, with a scripted vCPU in place of the engine."""

import ctypes
from enum import Enum
from typing import Any, NamedTuple

import pytest

from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.cpu import RETRY_LIMIT, Done, ModelCpu, real_paging
from shadowmmu.hardware.host_memory import HostMemory, Violation
from shadowmmu.hardware.walk import FETCH, USER, WRITE, Features

HIGH = 1 << 32
P, W, U, A, D, NX = 1, 2, 4, 0x20, 0x40, 1 << 63
GVA = 0x40201000
LONG = (hw.CR0_PG, hw.CR4_PAE, hw.EFER_LME | hw.EFER_LMA)


class Outcome(Enum):
    RETRY, FIXED, EMULATE, INJECT, ERROR = range(5)


class Entry(NamedTuple):
    root: int
    level: int
    flush_all: bool = False
    flush_gvas: tuple[int, ...] = ()


class Vcpu:
    """Answers page faults from a script of (outcome, action)."""

    def __init__(self, cr0: int, cr4: int, efer: int, entry: Entry) -> None:
        self.cr0, self.cr3, self.cr4, self.efer, self.ac = cr0, 0, cr4, efer, False
        self.entries, self.script, self.faults = [entry], [], []  # type: list[Entry], list[Any], list[tuple[int, int]]
        self.exception = (14, 5, GVA)
        self.emulated: list[tuple[int, bytes]] = []
        self.gpa: int | None = 0x9010

    def enter(self) -> Entry:
        return self.entries.pop(0) if len(self.entries) > 1 else self.entries[0]

    def page_fault(self, gva: int, code: int) -> Outcome:
        self.faults.append((gva, code))
        outcome, action = self.script.pop(0) if self.script else (Outcome.RETRY, None)
        if action is not None:
            action()
        return Outcome(outcome)

    def gva_to_gpa(self, gva: int, access: int) -> int | None:
        return self.gpa

    def read_emulated(self, gpa: int, size: int) -> bytes | None:
        return b"\x11" * size

    def write_emulated(self, gpa: int, data: bytes) -> bool:
        self.emulated.append((gpa, data))
        return True

    def inject(self) -> None:
        self.emulated.append((-1, b""))


class Log:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


class World:
    """A 4-level shadow tree at HIGH + 0x1000.., GVA maps HIGH + 0x9000."""

    def __init__(self, *, level: int = 4, mode: tuple[int, int, int] = LONG, root: int = HIGH + 0x1000, amd: bool = True) -> None:
        self.low, self.high = ctypes.create_string_buffer(0x4000), ctypes.create_string_buffer(0x40000)
        self.memory = HostMemory([(0, 0x4000, ctypes.addressof(self.low)), (HIGH, 0x40000, ctypes.addressof(self.high))])
        self.vcpu, self.log = Vcpu(*mode, Entry(root, level)), Log()
        self.cpu = ModelCpu(self.vcpu, self.memory, Features(maxphyaddr=46, amd=amd), self.log)
        for hpa, entry in ((0x1000, 0x2000), (0x2008, 0x3000), (0x3008, 0x4000)):
            self.put(hpa, HIGH + entry | P | W | U | A)
        self.put(0x4008, HIGH + 0x9000 | P | W | U | A | D)

    def put(self, offset: int, entry: int) -> None:
        self.memory.write(HIGH + offset, 8, entry)


def test_host_memory_has_two_zones() -> None:
    world = World()
    for hpa in (0x18, HIGH + 0x18):
        for size in (1, 2, 4, 8):
            world.memory.write(hpa, size, (1 << 8 * size) - 2)
            assert world.memory.read(hpa, size) == (1 << 8 * size) - 2
    with pytest.raises(Violation, match="where there is none"):
        world.memory.read(0x4000, 8)
    with pytest.raises(Violation, match="0x140000000"):
        world.memory.write(HIGH + 0x40000000, 8, 1)


def test_real_control_registers() -> None:
    """KVM's shadow paging: PG, WP, PAE and NXE always; SMEP and SMAP only for a guest with paging."""
    host = Features(maxphyaddr=46)
    off = real_paging(0, hw.CR4_SMEP | hw.CR4_SMAP, hw.EFER_LME, host)
    assert (off.levels, off.wp, off.nx) == (3, True, True)
    assert off.permits(USER | hw.EXEC, FETCH, False) and off.permits(USER, 0, False)
    on = real_paging(hw.CR0_PG, hw.CR4_SMEP | hw.CR4_SMAP | hw.CR4_PAE | hw.CR4_PKE, hw.EFER_LME | hw.EFER_LMA, host)
    assert (on.levels, on.keys) == (4, False)
    assert not on.permits(USER | hw.EXEC, FETCH, False) and not on.permits(USER, 0, False)


def test_load_and_store_complete() -> None:
    world = World()
    assert world.cpu.access(GVA | 0x10, USER | WRITE, False, 4, 0xCAFE) == (Done.COMPLETED, None, ())
    assert world.memory.read(HIGH + 0x9010, 4) == 0xCAFE
    assert world.cpu.access(GVA | 0x10, USER, False, 4) == (Done.COMPLETED, 0xCAFE, ())
    assert world.log.calls == [
        ("completed", GVA | 0x10, USER | WRITE, False, HIGH + 0x9010),
        ("stored", HIGH + 0x9010, 4),
        ("completed", GVA | 0x10, USER, False, HIGH + 0x9010),
    ]


def test_a_forgotten_flush_shows() -> None:
    world = World()
    world.cpu.access(GVA, 0, False, 8)
    world.put(0x4008, HIGH + 0xA000 | P | A)
    world.cpu.access(GVA, WRITE, False, 8, 1)
    assert world.memory.read(HIGH + 0x9000, 8) == 1
    world.vcpu.entries = [Entry(HIGH + 0x1000, 4, flush_gvas=(GVA + 0x1000,))]
    world.cpu.access(GVA, 0, False, 8)
    assert world.log.calls[-1][-1] == HIGH + 0x9000
    world.vcpu.entries = [Entry(HIGH + 0x1000, 4, flush_gvas=(GVA,))]
    world.cpu.access(GVA, 0, False, 8)
    assert world.log.calls[-1][-1] == HIGH + 0xA000


def test_another_root_flushes_nothing_by_itself() -> None:
    world = World()
    world.cpu.access(GVA, 0, False, 8)
    world.vcpu.entries = [Entry(HIGH + 0x10000, 4)]
    assert world.cpu.access(GVA, 0, False, 8).how is Done.COMPLETED
    world.vcpu.entries = [Entry(HIGH + 0x10000, 4, flush_all=True), Entry(HIGH + 0x10000, 4)]
    world.vcpu.script = [(Outcome.INJECT, None)]
    assert world.cpu.access(GVA, 0, False, 8).how is Done.INJECTED


def test_a_stale_entry_with_fewer_rights_faults_once() -> None:
    world = World()
    world.put(0x4008, HIGH + 0x9000 | P | A)
    world.cpu.access(GVA, 0, False, 8)
    world.put(0x4008, HIGH + 0x9000 | P | W | U | A | D)
    world.vcpu.script = [(Outcome.FIXED, None)]
    assert world.cpu.access(GVA, USER | WRITE, False, 8, 1) == (Done.COMPLETED, None, ("FIXED",))
    assert world.vcpu.faults == [(GVA, P | USER | WRITE)]


def test_a_clean_entry_is_walked_again_for_a_write() -> None:
    world = World()
    world.put(0x4008, HIGH + 0x9000 | P | W | A)
    world.cpu.access(GVA, 0, False, 8)
    world.cpu.access(GVA, WRITE, False, 8, 1)
    assert world.memory.read(HIGH + 0x4008, 8) & D


def test_faults_go_to_the_engine_until_done() -> None:
    world = World()
    world.put(0x4008, 0)
    world.vcpu.script = [(Outcome.RETRY, None), (Outcome.FIXED, lambda: world.put(0x4008, HIGH + 0x9000 | P | U | A))]
    assert world.cpu.access(GVA, USER, True, 8).exits == ("RETRY", "FIXED")
    assert world.vcpu.faults == [(GVA, USER)] * 2 and world.vcpu.ac
    assert [call[0] for call in world.log.calls] == ["before_walk", "after_walk"] * 2 + ["completed"]
    assert world.log.calls[1][1:] == ("RETRY", None, None)


def test_no_progress_is_a_violation() -> None:
    world = World()
    world.put(0x4008, 0)
    with pytest.raises(Violation, match="no progress: access 0x4 to 0x40201000 took 16 exits: RETRY RETRY"):
        world.cpu.access(GVA, USER, False, 8)
    assert len(world.vcpu.faults) == RETRY_LIMIT


def test_an_error_is_a_violation() -> None:
    world = World()
    world.put(0x4008, 0)
    world.vcpu.script = [(Outcome.ERROR, None)]
    with pytest.raises(Violation, match="ended in ERROR"):
        world.cpu.access(GVA, 0, False, 8)


def test_injection_and_emulation() -> None:
    world = World()
    world.put(0x4008, 1 << 51 | P)  # an MMIO mark: a reserved bit
    world.vcpu.script = [(Outcome.INJECT, None), (Outcome.EMULATE, None), (Outcome.EMULATE, None), (Outcome.EMULATE, None)]
    assert world.cpu.access(GVA, 0, False, 8).how is Done.INJECTED
    assert world.vcpu.faults == [(GVA, P | 8)]
    assert world.cpu.access(GVA, 0, False, 2) == (Done.EMULATED, 0x1111, ("EMULATE",))
    assert world.cpu.access(GVA, WRITE, False, 2, 0x1234) == (Done.EMULATED, None, ("EMULATE",))
    assert world.vcpu.emulated == [(0x9010, b"\x34\x12")]
    assert world.log.calls[-1] == ("emulated_store", 0x9010, 2)
    world.vcpu.gpa = None
    assert world.cpu.access(GVA, WRITE, False, 2, 0x1234).how is Done.INJECTED
    assert world.vcpu.emulated[-1] == (-1, b"")


def pae_world(amd: bool) -> World:
    world = World(level=3, mode=(0, 0, 0), root=0x1000, amd=amd)
    world.memory.write(0x1008, 8, HIGH + 0x3000 | P)
    return world


@pytest.mark.parametrize("amd", [True, False])
def test_pae_root(amd: bool) -> None:
    world = pae_world(amd)
    assert world.cpu.access(GVA, WRITE, False, 8, 5).how is Done.COMPLETED
    assert world.memory.read(HIGH + 0x9000, 8) == 5


def test_pdptes_of_intel_are_latched_and_checked_at_entry() -> None:
    world = pae_world(amd=False)
    world.memory.write(0x1018, 8, HIGH + 0x3000 | P | W)
    with pytest.raises(Violation, match="VM entry fails: PDPTE 0x100003003"):
        world.cpu.access(GVA, 0, False, 8)
    world.memory.write(0x1018, 8, HIGH + 0x3000 | W)
    world.cpu.enter()
    world.memory.write(0x1008, 8, 0)
    assert world.cpu.translate(GVA, 0, False) == HIGH + 0x9000


def test_pdptes_of_amd_are_read_at_use() -> None:
    world = pae_world(amd=True)
    world.memory.write(0x1018, 8, HIGH + 0x3000 | P | W)
    world.cpu.enter()
    world.memory.write(0x1008, 8, 0)
    assert world.cpu.translate(GVA, 0, False) == ~0
    assert world.cpu.translate(GVA | 0xC0000000, 0, False) == ~(P | 8)


def test_roots_that_no_cpu_could_load() -> None:
    with pytest.raises(Violation, match="root of level 4 loaded while the CPU walks 3 levels"):
        World(mode=(0, 0, 0)).cpu.enter()
    with pytest.raises(Violation, match="out of reach of a 32-bit CR3"):
        World(level=3, mode=(0, 0, 0)).cpu.enter()


def test_pcids_tag_the_tlb() -> None:
    world = World(mode=(hw.CR0_PG, hw.CR4_PAE | hw.CR4_PCIDE, hw.EFER_LME | hw.EFER_LMA))
    world.vcpu.cr3 = 0x1001
    world.cpu.access(GVA, 0, False, 8)
    world.put(0x4008, HIGH + 0xA000 | P | A)
    world.vcpu.cr3 = 0x1002
    world.cpu.access(GVA, 0, False, 8)
    assert world.log.calls[-1][-1] == HIGH + 0xA000
    world.vcpu.cr3 = 0x5001
    world.cpu.access(GVA, 0, False, 8)
    assert world.log.calls[-1][-1] == HIGH + 0x9000
