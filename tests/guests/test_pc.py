# SPDX-License-Identifier: GPL-2.0-only
"""A guest with interrupts on the small PC: timers wake it, one processor starts another, and a run repeats to the bit."""

from pathlib import Path

import msgspec
from assembled import assembled
from designs import every_design
from pc_program import CODE, GUEST, SOURCE

from shadowmmu.engine.face.types import EventRecord
from shadowmmu.machine.loader import load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult, Reason
from shadowmmu.machine.seam import Exit

COUNTS = "65311\n"
"""Timer interrupts, those before the guest let the last one in, interrupts by the I/O APIC, between processors, NMIs."""


def pc(roots: str = "special", code: bytes = CODE) -> tuple[GuestResult, list[tuple[str, list[EventRecord]]], int]:
    """The result, the engine's events at each exit, and the time at the end."""
    told: list[tuple[str, list[EventRecord]]] = []

    def note(machine: Machine, exit_: Exit) -> None:
        told.append((exit_.kind.value, machine.vm.records()))

    machine = Machine(GUEST, roots=roots, loaded=load_bytes(GUEST, code), on_exit=note)
    machine.vm.start_trace()
    result = machine.run(max_exits=5000, max_quiet=50_000_000)
    return msgspec.structs.replace(result, host_memory=0), told, machine.clock.now


def test_the_program_is_its_source(tmp_path: Path) -> None:
    assert assembled(SOURCE, tmp_path) == CODE


@every_design
def test_interrupts_wake_count_and_wait(roots: str) -> None:
    result, _, _ = pc(roots)
    assert (result.reason, result.output) == (Reason.PASSED, COUNTS)
    assert result.injected["NMI"] == 1
    assert result.exits["interrupt window"] == 1, "the interrupt that came while they were off"


def test_a_run_with_timers_repeats_to_the_bit() -> None:
    assert pc() == pc()


def test_a_reset_ends_the_run_and_the_screen_is_told() -> None:
    code = bytes.fromhex("66c70500800b004107b0fee664ebfe")  # mov word [0xb8000], 0x741; mov al, 0xfe; out 0x64, al; jmp $
    machine = Machine(GUEST, loaded=load_bytes(GUEST, code))
    assert machine.run().reason is Reason.RESET
    assert machine.last_seen(b"").screen == ["A"]


def test_counters_that_are_not_there_fault() -> None:
    code = bytes.fromhex("b9030000000f3383f8007504b010e6f4ebfe")  # mov ecx, 3; rdpmc; cmp eax, 0; jne $+4; pass
    assert pc(code=code)[0].reason is Reason.PASSED
    result, _, _ = pc(code=bytes.fromhex("b9040000000f33"))
    assert result.reason is Reason.TRIPLE_FAULT and result.injected["#GP"] == 1


def test_time_goes_on_while_all_sleep_and_is_bounded() -> None:
    program = bytes.fromhex("f4ebfd")  # hlt, again and again, and nothing wakes it
    result, _, _ = pc(code=program)
    assert result.reason is Reason.HALTED
    machine = Machine(GUEST, loaded=load_bytes(GUEST, bytes.fromhex("ebfe")))
    assert machine.run(max_ticks=1_000_000).reason is Reason.TIME_LIMIT
    assert machine.clock.now >= 1_000_000


def test_a_sleep_ends_at_the_vector_in_facs() -> None:
    """mov dword [0xe000c], 0x5000; mov ax, 0x2400; mov dx, 0x604; out dx, ax; jmp $ - and at 5000h: mov al, 0x10; out 0xf4, al; hlt"""
    code = bytes.fromhex("c7050c000e000050000066b8002466ba040666efebfe")
    loaded = load_bytes(GUEST, code.ljust(0x1000, b"\x90") + bytes.fromhex("b010e6f4f4"))
    result = Machine(GUEST, loaded=loaded).run(max_exits=1000)
    assert result.reason is Reason.PASSED, result.detail
