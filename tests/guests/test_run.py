"""The guests of guests/ on the whole machine, under both root designs: every answer they check must be right."""

import re
from pathlib import Path

import msgspec
import pytest

from shadowmmu.engine.vm import ROOT_DESIGNS
from shadowmmu.machine.loader import read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason

GUESTS = Path(__file__).parents[2] / "guests"
NAMES = sorted(path.stem for path in GUESTS.glob("*.toml"))

LINUX_DIFFERS = {
    "CR4.SMAP/no WP, no AC, after it": (
        "after a write with CR0.WP=0 and EFLAGS.AC=1 the shadow entry is a writable supervisor page, and SMAP no longer stops one with AC=0"
    ),
    "EFER.NXE/no NXE, read": (
        "the shadow's role has efer_nx always set, so entries with NX, made while it was legal, are found again after NXE is cleared"
    ),
    "CR4.PSE/table": "CR4.PSE is in no shadow page's role, so the shadow of a 4 MB page is found again after PSE is cleared",
}
"""Checks that Linux 6.1's shadow MMU does not pass either, and why."""


def test_there_are_guests() -> None:
    assert {"nonpaging", "2-level", "pae", "4-level", "5-level", "adversary"} <= set(NAMES)


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
@pytest.mark.parametrize("name", NAMES)
def test_guest(name: str, roots: str) -> None:
    machine = Machine(read_guest(GUESTS / f"{name}.toml"), roots=roots)
    result = machine.run()
    assert result.reason in (Reason.PASSED, Reason.FAILED), f"{result.reason}: {result.detail}\n{result.output}"
    failed = re.findall(r"^FAIL ([^:]+)", result.output, re.MULTILINE)
    assert [check for check in failed if check not in LINUX_DIFFERS] == [], result.output
    assert result.passed or failed
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
    failed = set(re.findall(r"^FAIL ([^:]+)", tight.output, re.MULTILINE))
    assert failed <= set(LINUX_DIFFERS)
    assert roomy.reason in (Reason.PASSED, Reason.FAILED)
