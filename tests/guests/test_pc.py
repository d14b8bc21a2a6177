# SPDX-License-Identifier: GPL-2.0-only
"""A guest with interrupts on the small PC: timers wake it, one processor starts another, and a run repeats to the bit."""

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from designs import every_design

from shadowmmu.engine.face.types import EventRecord
from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult, Reason
from shadowmmu.machine.seam import Exit

SOURCE = Path(__file__).with_name("pc.asm")
CODE = bytes.fromhex(
    "bc003f0000b0ffe621e6a10f011558420000ea194000000800bf00600000b900010000b8b6410000e86f010000e2f4bf80610000b8c0410000e85e01"
    "0000bf88610000b8d1410000e84f010000bf90610000b8e2410000e840010000bf10600000b8f3410000e8310100000f011d5e420000c705f000e0fe"
    "ff010000c705e003e0fe0b000000c7052003e0fe30000200c7058003e0fea0860100fbf4fa803d644200000572f4c7052003e0fe30000100c7052003"
    "e0fe30000000c7058003e0fee8030000b9a0860100e2fea064420000a265420000fb90fac7050000c0fe14000000c7051000c0fe32000000b034e643"
    "b000e640b010e640fb803d664200000372f7fabefa410000bf00200000b91b000000f3a4c7051003e0fe00000001c7050003e0fe00450000c7050003"
    "e0fe02460000fbf390803d674200000172f5c7050003e0fe00450000b90a000000f390e2fcc7050003e0fe00440400a064420000e832000000a06542"
    "0000e828000000a066420000e81e000000a067420000e814000000a068420000e80a000000b00ae6e9b010e6f4ebfe0430e6e9c366890766c7470208"
    "0066c74704008ec1e8106689470683c708c3b021e6e9b011e6f4ebfefe0564420000c705b000e0fe00000000cffe0567420000c705b000e0fe000000"
    "00cffe0566420000c705b000e0fe00000000cffe0568420000cffa31c08ed8660f011658420f20c00c010f22c066ea15420000080066b810008ed8c7"
    "05f000e0feff010000c7051003e0fe00000000c7050003e0fe31400000faf490909090900000000000000000ffff0000009bcf00ffff00000093cf00"
    "170040420000ff07006000000000000000"
)
GUEST = Guest(
    name="pc",
    image="pc.asm",
    directory=str(SOURCE.parent),
    format="flat",
    memory_mib=4,
    load=0x4000,
    start="protected",
    vcpus=2,
    platform="pc",
)
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
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    built = tmp_path / "pc.bin"
    subprocess.run(["nasm", "-f", "bin", "-o", built, SOURCE], check=True)
    assert built.read_bytes() == CODE


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
