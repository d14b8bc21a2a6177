# SPDX-License-Identifier: GPL-2.0-only
"""Hardware task switches on the whole machine: under another CR3, nested and not, and by a task gate with an error code."""

import shutil
import subprocess
from pathlib import Path

import pytest
from designs import every_design

from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult

SOURCE = Path(__file__).with_name("tasks.asm")
CODE = bytes.fromhex(
    "bc003f0000bf00000100b900040000b887000000890789870010000083c7040500004000e2eeb8100000000f22e0b8000001000f22d80f20c00d0000"
    "00800f22c00f011560410000ea4f40000008000f011dd641000066b818000f00d8c705f841000000000100c7056042000000100100c70564420000e1"
    "400000bb341200009a00000000200081fb341200007577b062e6e9c7056442000010410000c7057c420000003e000066b840008ee8b064e6e9c70564"
    "42000022410000c7056842000002000000ea000000002000b066e6e90f20c0a808742fb00ae6e9b010e6f4ebfe0f20d83d00100100751b66833d4442"
    "00001875119c58f6c440740abb00000000b061e6e9cfb021e6e9b011e6f4ebfe5883f84075f08305fc41000002b063e6e9cf66833ddc4100000075da"
    "b065e6e9ea000000001800900000000000000000ffff0000009bcf00ffff00000093cf006700dc410089000067004442008900002700384100000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000002000008500006f006641000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000100100000000000200000000000000000000000000000000000000003e00000000000000000000000000001000000008000000"
    "100000001000000000000000000000000000000000000000"
)


def run(roots: str, features: tuple[str, ...] = ()) -> GuestResult:
    guest = Guest(
        name="tasks", image="tasks.asm", format="flat", memory_mib=4, load=0x4000, start="protected", mode="2-level", features=features
    )
    machine = Machine(guest, roots=roots, loaded=load_bytes(guest, CODE))
    result = machine.run(max_exits=1000, max_quiet=10_000_000)
    assert (result.reason.value, result.output) == ("passed", "abcdef\n"), result.detail
    return result


def test_the_program_is_its_source(tmp_path: Path) -> None:
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    built = tmp_path / "tasks.bin"
    subprocess.run(["nasm", "-f", "bin", "-o", built, SOURCE], check=True)
    assert built.read_bytes() == CODE


@every_design
def test_tasks_switch_on_shadow_tables(roots: str) -> None:
    assert run(roots).exits["task switch"] == 5


def test_tasks_switch_on_nested_tables() -> None:
    run("special", ("npt",))
