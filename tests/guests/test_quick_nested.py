# SPDX-License-Identifier: GPL-2.0-only
"""Exits of an L2 that are served in the CPU's hook: those that its L1 intercepts and those that it does not, and events of L2's own."""

from __future__ import annotations

from typing import Any

import pytest
from nested_bench import L1_CODE, L2_CODE, L2_DATA, L2_TABLES, VMCB, VMMCALL, Bench

from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit, Reg
from shadowmmu.x86.vmcb import Intercept1, Intercept2, SvmExit, Vmcb

TIMES = 40
AGAIN = "0f01d8 ffcd 75f9 f4"  # L1: again: vmrun; dec ebp; jnz again; hlt
RDTSC, PAUSE = "0f31 01c6 01d7", "f390"  # with add esi, eax; add edi, edx
ABSENT = 0x40000000
IRETQ, SKIP = "48cf", "4883c408 4883042407 48cf"  # iretq; add rsp, 8; add qword [rsp], 7; iretq
SYSCALL = "51 0f05 59"  # push rcx; syscall; pop rcx; what is called goes back by jmp rcx


class Seen(Bench):
    audits_each = False


def look(_machine: Machine, _exit: Exit) -> None:
    pass


def outcome(bench: Bench, *, quick: bool) -> tuple[Any, ...]:
    """What L1 has done TIMES times, and what there is to see of it."""
    machine = bench.machine
    machine.on_exit = None if quick else look
    machine.vm.start_trace(1 << 18)
    state = bench.l1_state()
    state.gpr[Reg.RBP] = TIMES
    result = bench.run(state, max_exits=100_000)
    assert machine.vm.lost_events == 0 and result.reason == "halted", result
    page = machine.vm.read_guest(VMCB, 4096)
    told = result.exits, result.reflected, result.injected, result.outcomes, result.counters
    return told, machine.exits, machine.clock.now, page, bench.processor.cpu.state().gpr, machine.vm.records()


def in_both(set_up: Any) -> Machine:
    """The machine whose exits were served in the hook; all of it is as in the other one."""
    benches = [set_up(), set_up()]
    quick, slow = (outcome(bench, quick=quick) for bench, quick in zip(benches, (True, False), strict=True))
    assert quick == slow
    assert benches[1].machine.in_hook == 0
    return benches[0].machine


@pytest.mark.parametrize("npt", [True, False])
@pytest.mark.parametrize(
    ("intercept", "code", "exit_code"),
    [(Intercept1.RDTSC, RDTSC, SvmExit.RDTSC), (Intercept1.PAUSE, PAUSE, SvmExit.PAUSE), (Intercept1.CPUID, "0fa2", SvmExit.CPUID)],
)
def test_what_l1_intercepts(npt: bool, intercept: Intercept1, code: str, exit_code: SvmExit) -> None:
    def set_up() -> Bench:
        bench = Seen(npt=npt)
        bench.put(L1_CODE, AGAIN)
        bench.put(L2_CODE, code + VMMCALL)
        bench.set(Vmcb.INTERCEPTS_1, int(intercept), 4)
        return bench

    machine = in_both(set_up)
    assert machine.processors[0].reflected == {exit_code: TIMES}


@pytest.mark.parametrize("npt", [True, False])
def test_the_clock_and_pauses_that_l1_does_not_intercept(npt: bool) -> None:
    """L2's time-stamp counter has L1's offset."""

    def set_up() -> Bench:
        bench = Seen(npt=npt)
        bench.put(L1_CODE, AGAIN)
        bench.put(L2_CODE, "bb28000000 " + RDTSC + PAUSE + "ffcb 75f4 " + VMMCALL)  # mov ebx, 40; again: ...; dec ebx; jnz again
        bench.set(Vmcb.INTERCEPTS_2, Intercept2.VMRUN | Intercept2.VMMCALL, 4)
        bench.set(Vmcb.TSC_OFFSET, 1 << 40)
        return bench

    machine = in_both(set_up)
    assert machine.processors[0].exits.total() == machine.exits
    assert machine.in_hook > 0.9 * machine.exits


@pytest.mark.parametrize("npt", [True, False])
@pytest.mark.parametrize(
    ("vector", "code", "handler"),
    [(0x80, "cd80", IRETQ), (14, f"8b0425{ABSENT.to_bytes(4, 'little').hex()}", SKIP), (3, "cc", IRETQ)],
)
@pytest.mark.parametrize("wanted", [False, True])
def test_events_of_l2(npt: bool, vector: int, code: str, handler: str, wanted: bool) -> None:
    """INT n, INT3 and #PF go to its own IDT, if L1 does not take them."""
    at = L2_DATA + 0x800

    def set_up() -> Bench:
        bench = Seen(npt=npt)
        bench.put(L1_CODE, AGAIN)
        body = bytes.fromhex("bb28000000" + code)  # mov ebx, 40; again: ...
        again = -(len(body) - 5 + 4)
        bench.put(L2_CODE, (body + b"\xff\xcb\x75" + again.to_bytes(1, "little", signed=True)).hex() + VMMCALL)
        bench.put(at, handler)
        bench.gate(vector, at)
        if wanted:
            bench.set(Vmcb.EXCEPTION_INTERCEPTS, 1 << 3 | 1 << 14, 4)
            bench.set(Vmcb.INTERCEPTS_1, Intercept1.SOFTWARE_INTERRUPT, 4)
        return bench

    machine = in_both(set_up)
    if not wanted:
        assert machine.in_hook > 0.8 * machine.exits
        assert sum(machine.processors[0].injected.values()) == TIMES


def test_events_whose_stack_or_gate_is_not_there() -> None:
    """Nested faults, of entries and pages alike, and #PF in the midst of a delivery are the loop's."""

    def set_up() -> Bench:
        bench = Seen(npt=True)
        bench.put(L1_CODE, AGAIN)
        bench.put(L2_CODE, "cd80" + VMMCALL)
        bench.gate(0x80, L2_DATA)
        bench.put(L2_DATA, IRETQ)
        bench.nested.map(L2_TABLES & -0x1000, 0, 0)
        return bench

    machine = in_both(set_up)
    assert machine.processors[0].reflected[SvmExit.NESTED_PAGE_FAULT] == TIMES


def test_system_calls_of_l2() -> None:
    def set_up() -> Bench:
        bench = Seen(npt=True)
        bench.put(L1_CODE, AGAIN)
        # mov ecx, STAR; xor eax, eax; mov edx, 8; wrmsr; mov ecx, LSTAR; mov eax, L2_DATA; xor edx, edx; wrmsr
        star = "b9810000c0 31c0 ba08000000 0f30 b9820000c0 b8" + L2_DATA.to_bytes(4, "little").hex() + " 31d2 0f30"
        bench.put(L2_CODE, star + "bb28000000 " + SYSCALL + "ffcb 75f8 " + VMMCALL)
        bench.put(L2_DATA, "ffe1")  # jmp rcx
        bench.set(Vmcb.EFER, bench.field(Vmcb.EFER) | 1)
        return bench

    machine = in_both(set_up)
    assert machine.processors[0].exits.total() == machine.exits
