# SPDX-License-Identifier: GPL-2.0-only
"""Breakpoints on data, and DR7.GD: what a guest sees that asks for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from assembled import assembled
from designs import every_design

from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.seam import Exit

SOURCE = Path(__file__).with_name("watchpoints.asm")
CODE = bytes.fromhex(
    "bc003f00000f011590410000ea13400000080066b810008ed88ec08ed0bf08600000b833410000e82f010000bf00640000b82c410000e8200100000f"
    "011d96410000b8025000000f23c8b8105000000f23d0a300500000b82400d0070f23f8a100500000a304500000a3fc4f0000a300500000c605035000"
    "0000a3fd4f0000b02de6e966a110500000a10f500000a012500000be11500000bf01500000b905000000f3a4bc0450000050bc003f0000b02de6e966"
    "c7051050000010008e1510500000cd808e151050000090b02de6e99c810c24000100009da300500000836424fc009c812424fffeffff9db02de6e9b8"
    "002400000f23f8a3005000000f21c83d0250000075250f21f83d00040000751bb8002400000f23f80f23f8b8000400000f23f8b00ae6e9b010e6f4f4"
    "50b069e6e958cf500f21f050240f0430e6e958f6c4207404b067e6e9f6c4407404b073e6e9b8000000000f23f058cf66890766c74702080066c74704"
    "008ec1e81066894706c39090909090900000000000000000ffff0000009bcf00ffff00000093cf00170078410000ff0700600000"
)
SAYS = "222-446222-44i4-2s0s0s0s0s-0g0g0g\n"


def test_the_program_is_its_source(tmp_path: Path) -> None:
    assert assembled(SOURCE, tmp_path) == CODE


def look(_machine: Machine, _exit: Exit) -> None:
    pass


@every_design
@pytest.mark.parametrize("features", [(), ("npt",)])
@pytest.mark.parametrize("on_exit", [None, look])
def test_data_that_is_watched_traps_behind_what_touches_it(
    on_exit: Callable[[Machine, Exit], None] | None, features: tuple[str, ...], roots: str
) -> None:
    """Behind a load of SS not before the next instruction is done; and a guarded debug register faults, until a #DB has cleared GD."""
    guest = Guest(
        name="watched", image="watched", format="flat", memory_mib=4, load=0x4000, start="protected", platform="pc", features=features
    )
    machine = Machine(guest, roots=roots, loaded=load_bytes(guest, CODE), on_exit=on_exit)
    result = machine.run(max_exits=1000, max_quiet=100_000)
    assert (result.reason, result.output) == (Reason.PASSED, SAYS)
    assert result.injected["#DB"] == 20 and result.exits["debug register"] == 8
    assert machine.processors[0].cpu.executed == 464
