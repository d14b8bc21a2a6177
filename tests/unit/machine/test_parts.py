# SPDX-License-Identifier: GPL-2.0-only
"""Ports, MSRs, and memory as a delivery reaches it through the shadow tables."""

from typing import Any

import pytest

from shadowmmu.engine.face.types import Outcome
from shadowmmu.engine.face.vm import Vm
from shadowmmu.machine.devices.console import Console
from shadowmmu.machine.devices.exit_device import DEBUG_PORT, EXIT_PORT, DebugPort, ExitDevice
from shadowmmu.machine.devices.port_bus import PortBus
from shadowmmu.machine.devices.uart import SERIAL, SerialPort, Uart
from shadowmmu.machine.intercepts import SHADOW_PAGING
from shadowmmu.machine.memory.cpu_memory import CpuMemory
from shadowmmu.machine.memory.linear_memory import SYSTEM, WRITE, GuestFault, GuestMemory
from shadowmmu.machine.memory.translations import Translations
from shadowmmu.machine.seam import MASK64, Seg, Segment, State, System, Table
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.msr import PAT_RESET, SVMDIS, VM_CR_LOCK, Msrs
from shadowmmu.machine.vcpu.svm_state import SvmState
from shadowmmu.x86.msr import EFER, FS_BASE, KERNEL_GS_BASE, LSTAR, PAT, STAR, SYSENTER_CS, TSC, VM_CR, VM_HSAVE_PA

# --- ports


class Bench:
    """Ports with the devices of every machine; `lines` is what they told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.console = Console(self.lines.append)
        self.exit = ExitDevice(lambda: self.lines.append("exit"))
        self.ports = PortBus()
        self.ports.add(SERIAL, len(Uart), SerialPort(self.console.print))
        self.ports.add(DEBUG_PORT, 1, DebugPort(self.console.print))
        self.ports.add(EXIT_PORT, 1, self.exit)


def test_serial_output_by_lines() -> None:
    bench = Bench()
    for character in b"one\ntw\xc3\xb6":
        assert bench.ports.read(SERIAL + 5, 1) & 0x20
        bench.ports.write(SERIAL, 1, character)
    assert bench.lines == ["one\n"]
    assert bench.console.output == "one\ntwö"
    bench.console.flush()
    assert bench.lines == ["one\n", "twö"]


def test_setting_the_baud_rate_prints_nothing() -> None:
    bench = Bench()
    ports = bench.ports
    for register, value in ((3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (7, 0x5A)):
        ports.write(SERIAL + register, 1, value)
    ports.write(SERIAL, 1, ord("x"))
    assert (bench.console.output, ports.read(SERIAL + 7, 1), ports.read(SERIAL + 2, 1)) == ("x", 0x5A, 1)


def test_exit_port_debug_port_and_nothing() -> None:
    bench = Bench()
    ports = bench.ports
    ports.write(DEBUG_PORT, 1, ord("d"))
    ports.write(EXIT_PORT, 4, 0x10)
    ports.write(EXIT_PORT, 4, 0x11)
    assert (bench.exit.code, bench.console.output, bench.lines) == (0x10, "d", ["exit"])
    assert [ports.read(0x60, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]


# --- MSRs


def msrs(*, svm: bool = False) -> tuple[Msrs, State, Any]:
    vcpu = Vm(memory_mib=1).vcpus[0]
    vcpu.set_sregs(0x11, 0, 0, 0)
    none = Segment(0, 0, 0, 0)
    state = State([0] * 16, 0, 2, System((none,) * 6, none, none, Table(0, 0), Table(0, 0), 0, 0, 0, 0))
    kept = SvmState(vcpu, SHADOW_PAGING, 0, 0, 48, PAT_RESET)
    cpuid = Cpuid(0, vcpu.vm.config, frozenset(("svm",) if svm else ()))
    return Msrs(vcpu, GuestMemory(vcpu, lambda gpa, size: None), 0, cpuid, kept), state, vcpu


@pytest.mark.parametrize(
    ("index", "value"), [(STAR, 0x1234 << 32), (LSTAR, MASK64), (KERNEL_GS_BASE, 1 << 46), (FS_BASE, 0x5000), (PAT, 0x0606)]
)
def test_msrs_keep_their_value(index: int, value: int) -> None:
    registers, state, _ = msrs()
    registers.write(index, value, state, 0)
    assert registers.read(index, state, 0) == value


def test_msrs_with_a_meaning() -> None:
    registers, state, vcpu = msrs()
    registers.write(SYSENTER_CS, 0x1_0000_0010, state, 0)
    assert state.system.sysenter_cs == 0x10
    registers.write(FS_BASE, 0x7000, state, 0)
    assert state.system.segments[Seg.FS].base == 0x7000
    registers.write(EFER, 0x901, state, 0)
    assert vcpu.efer == 0x901
    registers.write(TSC, 500, state, 3000)
    assert registers.read(TSC, state, 3100) == 600


@pytest.mark.parametrize(
    ("index", "value"),
    [(EFER, 1 << 12), (EFER, 1 << 14), (LSTAR, 1 << 47), (FS_BASE, 1 << 60), (PAT, 2), (PAT, 8 << 56), (0x8B, 1), (0xDEAD, 0)],
)
def test_bad_msr_writes(index: int, value: int) -> None:
    registers, state, _ = msrs()
    with pytest.raises(GuestFault, match="#GP"):
        registers.write(index, value, state, 0)


def test_msrs_of_svm() -> None:
    registers, state, vcpu = msrs(svm=True)
    registers.write(VM_HSAVE_PA, 0x5000, state, 0)
    assert registers.read(VM_HSAVE_PA, state, 0) == 0x5000
    registers.write(EFER, 0x1000, state, 0)
    assert vcpu.efer == 0x1000
    for index, value in ((VM_HSAVE_PA, 0x5001), (VM_HSAVE_PA, 1 << 40), (VM_CR, 1 << 5), (VM_CR, SVMDIS)):
        with pytest.raises(GuestFault, match="#GP"):
            registers.write(index, value, state, 0)


def test_svm_disabled_and_locked() -> None:
    registers, state, _ = msrs(svm=True)
    registers.write(VM_CR, SVMDIS | VM_CR_LOCK, state, 0)
    registers.write(VM_CR, 0, state, 0)
    assert registers.read(VM_CR, state, 0) == SVMDIS | VM_CR_LOCK
    with pytest.raises(GuestFault, match="#GP"):
        registers.write(EFER, 0x1000, state, 0)


def test_unknown_msr_reads() -> None:
    registers, state, _ = msrs()
    with pytest.raises(GuestFault, match="#GP"):
        registers.read(0xDEAD, state, 0)


# --- memory through the shadow tables


class Shadow:
    """A vCPU without paging, and its memory as a delivery sees it; the exits of one are only given to the engine."""

    def __init__(self) -> None:
        self.vm = Vm(memory_mib=1)
        self.vcpu = self.vm.vcpus[0]
        self.vcpu.set_sregs(0x11, 0, 0, 0)
        self.vcpu.enter()
        self.outcomes: list[Outcome] = []
        self.stored: list[int] = []
        self.translations = Translations()
        self.memory = CpuMemory(self.vcpu, lambda gpa, size: None, lambda hpa, size: self.stored.append(hpa), self, self.translations)

    def page_fault(self, gva: int, access: int, code: int) -> Outcome:
        self.outcomes.append(self.vcpu.page_fault(gva, code))
        return self.outcomes[-1]

    def nested_page_fault(self, gpa: int, code: int) -> Outcome:
        raise AssertionError("there are no nested tables")

    def reenter(self) -> None:
        self.vcpu.enter()


def test_the_first_access_faults_into_the_engine_and_the_next_does_not() -> None:
    s = Shadow()
    span = s.memory.locate(0x5FFC, 8, SYSTEM | WRITE)
    assert s.outcomes.count(Outcome.FIXED) == len(s.outcomes) > 0
    faults = len(s.outcomes)
    s.memory.store(span, 0x1122334455667788)
    s.memory.begin()
    assert s.memory.read(0x5FFC, 8, SYSTEM) == 0x1122334455667788
    assert len(s.outcomes) == faults
    assert s.vm.read_guest(0x5FFC, 8) == (0x1122334455667788).to_bytes(8, "little")
    assert s.stored == [s.vm.host_page(0x5000) | 0xFFC, s.vm.host_page(0x6000)]
    assert s.vm.counters()["mmu_pte_write"] == 0, "the MMU is not told, as of no store of the CPU"


def test_a_translation_lives_as_in_a_tlb() -> None:
    """From one delivery to the next, but not with other registers, and not where the engine has to emulate."""
    s = Shadow()
    s.memory.begin()
    s.memory.locate(0x5000, 4, SYSTEM)
    kept = s.translations.find(5, SYSTEM)
    assert kept == s.vm.host_page(0x5000)
    s.memory.begin()
    assert s.translations.find(5, SYSTEM) == kept
    s.memory.locate(0x4000_0000, 4, SYSTEM)
    s.memory.begin()
    assert s.translations.find(5, SYSTEM) is None
    s.memory.locate(0x5000, 4, SYSTEM)
    s.vcpu.ac = True
    s.memory.begin()
    assert s.translations.find(5, SYSTEM) is None


def test_memory_that_is_not_there() -> None:
    s = Shadow()
    span = s.memory.locate(0x4000_0000, 4, SYSTEM | WRITE)
    s.memory.store(span, 5)
    assert s.memory.load(span) == 0xFFFFFFFF
    assert Outcome.EMULATE in s.outcomes
    edge = s.memory.locate(0xFFFFE, 4, SYSTEM | WRITE)
    s.memory.store(edge, 0x11223344)
    assert s.memory.load(edge) == 0xFFFF3344
    assert s.stored == [s.vm.host_page(0xFF000) | 0xFFE]


def test_a_shadowed_table_is_written_by_the_emulator() -> None:
    """2-level paging whose directory maps itself for writing: a store there is one the MMU must be told of."""
    s = Shadow()
    s.vm.write_guest(0x1000, (0x2007).to_bytes(4, "little"))  # directory: table at 0x2000
    s.vm.write_guest(0x2000, b"".join((i << 12 | 7).to_bytes(4, "little") for i in range(16)))
    s.vcpu.set_sregs(0x80010011, 0x1000, 0, 0)
    s.vcpu.enter()
    s.memory.begin()
    s.memory.store(s.memory.locate(0x9000, 4, SYSTEM | WRITE), 1)
    before = s.vm.counters()["mmu_pte_write"]
    s.memory.store(s.memory.locate(0x1004, 4, SYSTEM | WRITE), 0)
    assert s.vm.counters()["mmu_pte_write"] == before + 1
    with pytest.raises(GuestFault, match=r"#PF error code 0x2 at 0x11000"):
        s.memory.locate(0x11000, 4, SYSTEM | WRITE)
    assert s.outcomes[-1] is Outcome.INJECT
