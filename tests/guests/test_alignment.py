# SPDX-License-Identifier: GPL-2.0-only
"""Alignment checks: a guest's user code that turns them on and off."""

from collections.abc import Callable
from pathlib import Path

import pytest
from assembled import assembled
from designs import every_design

from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.seam import Exit

SOURCE = Path(__file__).with_name("alignment.asm")
CODE = bytes.fromhex(
    "bc003f00000f0115a0410000ea13400000080066b810008ed88ec08ed0bf88600000b8cc400000b68ee8c0000000bf00640000b8de400000b6eee8af"
    "0000000f011da641000066b828000f00d8a1015000000f20c00d000004000f22c0a1015000006a2368003e000068023204006a1b6876400000cfb932"
    "000000a104500000a30850000066a102500000800501500000018d05015000005058e2dfa101500000a302500000bf030000009c812424fffffbff9d"
    "a1015000009c810c24000004009da1035000004f75e1cd80fe05054100005800050541000083042405cfa005410000e6e9b00ae6e9b010e6f4f46689"
    "0766c747020800b20066895704c1e81066894706c33090900000000000000000ffff0000009bcf00ffff00000093cf00ffff000000fbcf00ffff0000"
    "00f3cf00670038410089000000000000003f000010000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000002f000841"
    "0000ff0700600000"
)


def test_the_program_is_its_source(tmp_path: Path) -> None:
    assert assembled(SOURCE, tmp_path) == CODE


def look(_machine: Machine, _exit: Exit) -> None:
    pass


@every_design
@pytest.mark.parametrize("features", [(), ("npt",)])
@pytest.mark.parametrize("on_exit", [None, look])
def test_operands_that_are_not_aligned_fault_while_that_is_asked_for(
    on_exit: Callable[[Machine, Exit], None] | None, features: tuple[str, ...], roots: str
) -> None:
    guest = Guest(
        name="alignment", image="alignment", format="flat", memory_mib=4, load=0x4000, start="protected", platform="pc", features=features
    )
    machine = Machine(guest, roots=roots, loaded=load_bytes(guest, CODE), on_exit=on_exit)
    result = machine.run(max_exits=1000, max_quiet=100_000)
    assert (result.reason, result.output) == (Reason.PASSED, "5\n")
    assert result.injected["#AC"] == 5 and result.exits["exception"] == 5
    assert machine.processors[0].cpu.executed == 504
