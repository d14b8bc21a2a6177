# SPDX-License-Identifier: GPL-2.0-only
"""The Unicorn back end by itself: entry with any state, exits, state in and out, ports, code that changes."""

import gc
import struct
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from cpu_bench import CODE, CONTROLS, DATA, HIGH, PAE_CONTROLS, REAL_CONTROLS, TABLES, Bench, Ports

from shadowmmu.engine.face.config import VmConfig
from shadowmmu.machine.cpu import unicorn_layout
from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.cpu.unicorn_host import SvmHost
from shadowmmu.machine.cpu.unicorn_layout import layout
from shadowmmu.machine.devices.apic_bus import ApicBus
from shadowmmu.machine.devices.clock import Clock
from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.seam import Controls, CpuError, ExitKind, Reg, Seg, Segment
from shadowmmu.machine.vcpu.cpuid import FEATURES, OF_APIC, ON_REQUEST, Cpuid, cr4_not_for
from shadowmmu.x86.control import Cr4
from shadowmmu.x86.vectors import UD


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench()


def test_the_layout_is_found() -> None:
    found = layout()
    assert found is layout()
    assert found.gpr < found.rip < found.segments < found.cr3 < found.head_end < found.error_code


def test_the_engine_that_shows_the_layout_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cycle holds it, and its gibibyte of addresses, until garbage is collected."""
    made: list[weakref.ref[SvmHost]] = []

    class Watched(SvmHost):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(unicorn_layout, "SvmHost", Watched)
    gc.disable()
    try:
        assert layout.__wrapped__() == layout()
        assert [ref() for ref in made] == [None]
    finally:
        gc.enable()


def test_a_state_goes_in_and_comes_out(bench: Bench) -> None:
    state = bench.state("0fa2")
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)
    assert bench.cpu.run().kind is ExitKind.CPUID
    seen = bench.cpu.state()
    assert (seen.gpr, seen.rip, seen.rflags, seen.system) == (state.gpr, CODE, 0x246, state.system)


@pytest.mark.parametrize(
    ("code", "kind", "number"),
    [
        ("0fa2", ExitKind.CPUID, None),
        ("f4", ExitKind.HLT, None),
        ("0f013f", ExitKind.INVLPG, None),
        ("0f32", ExitKind.MSR, 0),
        ("0f30", ExitKind.MSR, 1),
        ("0f31", ExitKind.RDTSC, None),
        ("0f01f9", ExitKind.RDTSC, None),
        ("0f20c0", ExitKind.CR_READ, 0),
        ("0f20d0", ExitKind.CR_READ, 2),
        ("0f20d8", ExitKind.CR_READ, 3),
        ("0f20e0", ExitKind.CR_READ, 4),
        ("440f20c0", ExitKind.CR_READ, 8),
        ("0f22c0", ExitKind.CR_WRITE, 0),
        ("0f22d8", ExitKind.CR_WRITE, 3),
        ("0f22e0", ExitKind.CR_WRITE, 4),
        ("0f06", ExitKind.CR_WRITE, 0),
        ("0f01f0", ExitKind.CR_WRITE, 0),
        ("0f01e0", ExitKind.CR_READ, 0),
        ("cd80", ExitKind.SOFTWARE_INTERRUPT, None),
        ("cc", ExitKind.SOFTWARE_INTERRUPT, None),
        ("0f0b", ExitKind.EXCEPTION, 6),
        ("31c9f7f1", ExitKind.EXCEPTION, 0),
        ("0f09", ExitKind.CACHE, None),
        ("0f01d8", ExitKind.SVM, None),
        ("0f01d9", ExitKind.SVM, None),
        ("0f01da", ExitKind.SVM, None),
        ("0f01dd", ExitKind.SVM, None),
        ("0f01c8", ExitKind.UNDEFINED, None),
        ("0f05", ExitKind.SYSCALL, None),
    ],
)
def test_exits(bench: Bench, code: str, kind: ExitKind, number: int | None) -> None:
    state = bench.state(code)
    state.gpr[Reg.RCX] = 0  # which MONITOR demands
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)
    exit_ = bench.cpu.run()
    assert exit_.kind is kind
    assert number is None or exit_.number == number


@pytest.mark.parametrize(
    ("code", "user", "gva", "error"),
    [
        ("488b8700004000", False, 0x430000, 0),  # mov rax, [rdi+0x400000]
        ("48898700004000", True, 0x430000, 6),
        ("ffa700004000", False, 0x430000, 0),
        ("48c7c000004000ffe0", True, 0x400000, 0x14),
    ],
)
def test_page_faults_tell_address_and_error_code(bench: Bench, code: str, user: bool, gva: int, error: int) -> None:
    bench.cpu.set_state(bench.state(code, user=user))
    bench.cpu.set_controls(CONTROLS)
    exit_ = bench.cpu.run()
    assert (exit_.kind, exit_.gva, exit_.error_code) == (ExitKind.PAGE_FAULT, gva, error)


def test_a_reserved_bit_fault_has_the_present_bit(bench: Bench) -> None:
    bench.put(TABLES + 0x2008, 1 << 51 | HIGH | 0x87, 8)
    bench.cpu.set_state(bench.state("488b8700002000"))
    bench.cpu.set_controls(CONTROLS)
    assert bench.cpu.run().error_code == 9


def test_error_codes_of_other_exceptions(bench: Bench) -> None:
    state = bench.state("8ed8")  # mov ds, eax
    state.gpr[Reg.RAX] = 0x5678
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)
    exit_ = bench.cpu.run()
    assert (exit_.kind, exit_.number, exit_.error_code) == (ExitKind.EXCEPTION, 13, 0x5678)


def test_registers_changed_at_an_exit(bench: Bench) -> None:
    """In place, and with a change of segments, which enters the guest anew; XMM registers stay."""
    bench.cpu.set_state(bench.state("0fa2 4801c1 0fa2 4801c1 0fa2"))  # cpuid; add rcx, rax; ...
    bench.cpu.set_controls(CONTROLS)
    bench.cpu.run()
    bench.cpu.set_vector(3, 0xABCDEF << 64 | 0x12345)
    for anew in (False, True):
        state = bench.cpu.state()
        state.rip += 2
        state.gpr[Reg.RAX], state.gpr[Reg.RCX], state.rflags = 5, 7, 0x203
        if anew:
            state.set_segments({Seg.DS: Segment(0, 0, 0, 0)})
        bench.cpu.set_state(state)
        assert bench.cpu.run().kind is ExitKind.CPUID
        state = bench.cpu.state()
        assert (state.gpr[Reg.RCX], state.rflags & 1, bench.cpu.vector(3)) == (12, 0, 0xABCDEF << 64 | 0x12345)
    assert state.system.segments[Seg.DS].selector == 0


def test_breakpoints_are_those_of_the_state_that_was_loaded(bench: Bench) -> None:
    """The guest sets one with MOV; a change of DR7 by who runs it, as by an exit to L1, acts like the guest's own."""
    state = bench.state("0f23c0 0f23f9 90 0fa2 90 0fa2")  # mov dr0, rax; mov dr7, rcx; nop; cpuid; nop; cpuid
    state.gpr[Reg.RAX], state.gpr[Reg.RCX] = CODE + 6, 0x402
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)

    def run(dr7: int, at: int) -> tuple[ExitKind, int]:
        state = bench.cpu.state()
        state.system, state.rip = state.system._replace(dr7=dr7), CODE + at
        bench.cpu.set_state(state)
        return bench.cpu.run().kind, bench.cpu.state().rip - CODE

    assert (bench.cpu.run().kind, bench.cpu.state().rip - CODE) == (ExitKind.EXCEPTION, 6)
    assert run(0x400, 6) == (ExitKind.CPUID, 7)
    assert run(0x401, 6) == (ExitKind.EXCEPTION, 6)
    assert run(0x400, 6) == (ExitKind.CPUID, 7)
    assert run(0x402, 9) == (ExitKind.CPUID, 10)
    assert run(0x402, 6) == (ExitKind.EXCEPTION, 6)


def test_a_new_cr3_and_stale_translations(bench: Bench) -> None:
    bench.put(DATA, 0xAA, 1)
    bench.put(0x200000 + DATA, 0xBB, 1)
    bench.cpu.set_state(bench.state("8a07 0fa2 8a07 0fa2"))
    bench.cpu.set_controls(CONTROLS)
    bench.cpu.run()
    assert bench.cpu.state().gpr[Reg.RAX] & 0xFF == 0xAA
    second = TABLES + 0x8000
    bench.ram[second : second + 0x3000] = bench.ram[TABLES : TABLES + 0x3000]
    bench.put(second, HIGH + second + 0x1007, 8)
    bench.put(second + 0x1000, HIGH + second + 0x2007, 8)
    bench.put(second + 0x2000, HIGH + 0x200000 | 0x87, 8)
    bench.ram[0x200000 + CODE : 0x200000 + CODE + 8] = bench.ram[CODE : CODE + 8]
    state = bench.cpu.state()
    state.rip += 2
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS._replace(cr3=HIGH + second))
    bench.cpu.run()
    assert bench.cpu.state().gpr[Reg.RAX] & 0xFF == 0xBB


def test_code_changed_by_others_is_translated_anew(bench: Bench) -> None:
    bench.cpu.set_state(bench.state("b801000000 0fa2"))
    bench.cpu.set_controls(CONTROLS)
    bench.cpu.run()
    for value, anew in ((2, False), (3, True)):
        bench.ram[CODE + 1] = value
        bench.cpu.code_changed(HIGH + CODE + 1, 1)
        state = bench.cpu.state()
        state.rip = CODE
        if anew:
            state.set_segments({Seg.ES: Segment(0, 0, 0, 0)})
        bench.cpu.set_state(state)
        bench.cpu.run()
        assert bench.cpu.state().gpr[Reg.RAX] == value


def test_ports(bench: Bench) -> None:
    bench.cpu.set_state(bench.state("e460 ed e680 ef f4"))  # in al, 0x60; in eax, dx; out 0x80, al; out dx, eax; hlt
    bench.cpu.set_controls(CONTROLS)
    assert bench.cpu.run().kind is ExitKind.HLT
    assert bench.ports.log == [(0x60, 1), (0x0202, 4), (0x80, 1, 0x90), (0x0202, 4, 0x34567890)]


def test_a_port_that_is_denied(bench: Bench) -> None:
    bench.allowed = False
    state = bench.state("b055 e680 b077 0fa2", user=True)
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)
    assert bench.cpu.run().kind is ExitKind.PORT_DENIED
    seen = bench.cpu.state()
    assert (seen.rip, seen.gpr[Reg.RAX], bench.ports.log) == (CODE + 2, 0x55, [])


def test_an_address_outside_host_memory_is_an_error_of_the_machine(bench: Bench) -> None:
    bench.put(TABLES + 0x2008, 0x7000000000 | 0x87, 8)
    bench.cpu.set_state(bench.state("488b8700002000"))
    bench.cpu.set_controls(CONTROLS)
    with pytest.raises(CpuError, match="outside host memory: 0x7000030000"):
        bench.cpu.run()


def test_host_memory_that_covers_the_cpus_own_region() -> None:
    with pytest.raises(CpuError, match="make the low zone smaller"):
        UnicornCpu([(0xDFFFF000, 0x2000, 0)], Ports(), lambda state, port, size: True)


@pytest.mark.parametrize(("controls", "attr"), [(PAE_CONTROLS, 0xC9B), (REAL_CONTROLS, 0x09B)])
def test_legacy_modes(bench: Bench, controls: Controls, attr: int) -> None:
    state = bench.state("6631c0 0fa2" if attr == 0x09B else "31c0 0fa2")
    base = CODE if attr == 0x09B else 0
    state.set_segments({Seg.CS: Segment(CODE >> 4, attr, 0xFFFF if base else 0xFFFFFFFF, base)})
    state.rip = CODE - base
    bench.cpu.set_state(state)
    bench.cpu.set_controls(controls)
    assert bench.cpu.run().kind is ExitKind.CPUID
    assert bench.cpu.state().gpr[Reg.RAX] == 0


def test_cpuid_offers_what_it_says() -> None:
    leaves = Cpuid(0, VmConfig())
    for name, (leaf, register, bit) in FEATURES.items():
        assert bool(leaves.read(leaf, 0)[register] >> bit & 1) == (name not in ON_REQUEST | OF_APIC), name
    assert Cpuid(0, VmConfig(), frozenset(("la57",))).read(7, 0).ecx >> 16 & 1
    assert not leaves.read(0x80000001, 0).ecx >> 2 & 1, "no SVM"
    assert not leaves.read(1, 0).ecx >> 17 & 1, "no PCID"
    assert not leaves.read(7, 0).ecx >> 3 & 1, "no protection keys"
    assert not leaves.has(0xD, 0), "no XSAVE"
    assert leaves.read(0x80000008, 0).eax == 48 << 8 | 40
    assert leaves.read(0x12345, 0) == (0, 0, 0, 0)


def test_xsave_is_offered_with_the_components_that_the_cpu_has(bench: Bench) -> None:
    config = VmConfig(cr4_reserved=cr4_not_for(frozenset(("xsave",))))
    leaves = Cpuid(0, config, frozenset(("xsave",)))
    assert (leaves.read(0xD, 0), leaves.read(0xD, 1).eax, leaves.has(0xD, 2)) == ((3, 576, 576, 0), 5, False)
    assert [leaves.read(1, 0, cr4).ecx >> 26 & 3 for cr4 in (0, Cr4.OSXSAVE)] == [1, 3]
    state = bench.state("0f01d1 0fae27 0f01d0 f4")  # xsetbv; xsave [rdi]; xgetbv; hlt
    state.gpr[Reg.RAX], state.gpr[Reg.RCX], state.gpr[Reg.RDX] = leaves.read(0xD, 0).eax, 0, 0
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)
    assert bench.cpu.run().number == UD
    bench.cpu.set_controls(CONTROLS._replace(cr4=CONTROLS.cr4 | Cr4.OSXSAVE))
    assert bench.cpu.run().kind is ExitKind.HLT
    assert bench.cpu.state().gpr[Reg.RAX] == 3
    assert struct.unpack_from("<Q", bench.ram, DATA + 512) == (3,), "what the area says that it holds"


def test_cpuid_tells_an_apic_its_number_and_the_others() -> None:
    clock, bus = Clock(), ApicBus()
    leaves = Cpuid(2, VmConfig(vcpus=3), apic=LocalApic(2, clock, bus))
    assert [leaves.read(0xB, subleaf) for subleaf in range(3)] == [(0, 1, 0x100, 2), (2, 3, 0x201, 2), (0, 0, 2, 2)]
    assert not Cpuid(2, VmConfig(vcpus=3)).has(0xB, 0)


def test_cpuid_is_of_the_cpu_that_the_vm_is_made_with() -> None:
    config = VmConfig(vcpus=2, maxphyaddr=36, pages_1g=False, guest_vendor="vmx", efer_reserved=0x800, cr4_reserved=1 << 20)
    leaves = Cpuid(1, config)
    assert struct.pack("<3I", *(leaves.read(0, 0)[i] for i in (1, 3, 2))) == b"GenuineIntel"
    assert leaves.read(0x80000008, 0).eax & 0xFF == 36 and leaves.read(0x80000008, 0).ecx == 1
    missing = {name for name, (leaf, register, bit) in FEATURES.items() if not leaves.read(leaf, 0)[register] >> bit & 1}
    assert missing == {"1gb-pages", "nx", "smep"} | ON_REQUEST | OF_APIC
