# SPDX-License-Identifier: GPL-2.0-only
"""The guests of guests/ on the whole machine, under every root design: every answer they check must be right."""

from pathlib import Path

import msgspec
import pytest
from designs import every_design

from shadowmmu.machine.loader import read_guest
from shadowmmu.machine.machine import Machine

GUESTS = Path(__file__).parents[2] / "guests"
NAMES = sorted(path.stem for path in GUESTS.glob("*.toml") if not path.stem.startswith("l1-"))


def test_there_are_guests() -> None:
    assert {"nonpaging", "2-level", "pae", "4-level", "5-level", "adversary"} <= set(NAMES)


@every_design
@pytest.mark.parametrize("name", NAMES)
def test_guest(name: str, roots: str) -> None:
    machine = Machine(read_guest(GUESTS / f"{name}.toml"), roots=roots)
    result = machine.run()
    assert result.passed, f"{result.reason}: {result.detail}\n{result.output}"
    assert "FAIL" not in result.output
    assert "\nDONE " in result.output
    assert machine.vm.bugs() == []
    assert result.unprotected == 0, "the emulator knows all that the guests do"


@pytest.mark.parametrize("name", ["nonpaging", "pae"])
def test_a_run_repeats_exactly(name: str) -> None:
    guest = read_guest(GUESTS / f"{name}.toml")
    first, second = (msgspec.structs.replace(Machine(guest).run(), host_memory=0) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["nonpaging", "pae", "4-level"])
def test_few_shadow_pages_change_no_answer(name: str) -> None:
    """With room for hardly more than the kernel's least number of shadow pages, they are recycled all the time."""
    guest = read_guest(GUESTS / f"{name}.toml")
    roomy, tight = Machine(guest).run(), Machine(guest, shadow_pages=64).run()
    assert tight.counters["mmu_recycled"] > 0 or name == "nonpaging"
    assert tight.passed and roomy.passed
