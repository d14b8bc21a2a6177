# SPDX-License-Identifier: GPL-2.0-only
"""The guests that are hypervisors on the whole machine: every answer right under every root design, audited at every exit."""

from pathlib import Path

import pytest
from designs import every_design

from shadowmmu import ROOT_DESIGNS, Vm
from shadowmmu.check.audit import audit
from shadowmmu.machine.loader import read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult

GUESTS = Path(__file__).parents[2] / "guests"
NAMES = sorted(path.stem for path in GUESTS.glob("l1-*.toml"))


def test_there_is_one_of_every_form() -> None:
    assert NAMES == ["l1-2-level", "l1-4-level", "l1-no-npt", "l1-no-npt-pae", "l1-pae"]


def check(vm: Vm) -> None:
    """The audit of `Machine`: it finds nothing, ever."""
    assert audit(vm) == []


def passed(machine: Machine) -> GuestResult:
    result = machine.run()
    assert result.passed, f"{result.reason}: {result.detail}\n{result.output}"
    assert "FAIL" not in result.output and "SKIP" not in result.output
    assert machine.vm.bugs() == []
    assert result.unprotected == 0, "the emulator knows all that the guests do"
    return result


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_right_and_the_same_on_every_design(name: str) -> None:
    guest = read_guest(GUESTS / f"{name}.toml")
    results = {roots: passed(Machine(guest, roots=roots, audit=check)) for roots in ROOT_DESIGNS}
    for roots, result in results.items():
        assert result.counters["mmu_shadow_zapped"] > 0
        specials = result.counters["special_allocated"]
        assert (specials > 0) == (not ROOT_DESIGNS[roots].bare and name != "l1-4-level"), "which L1s and L2s get special roots"
    assert len({(result.output, result.exits["SVM"]) for result in results.values()}) == 1, "the guest cannot tell the designs apart"


@every_design
@pytest.mark.parametrize("name", NAMES)
def test_few_shadow_pages_change_no_answer(name: str, roots: str) -> None:
    """With hardly more than the kernel's least number of shadow pages, those of nested tables are recycled under L2."""
    result = passed(Machine(read_guest(GUESTS / f"{name}.toml"), roots=roots, shadow_pages=64))
    assert result.counters["mmu_recycled"] > 0 or name == "l1-no-npt-pae", "the smallest has room even so"
