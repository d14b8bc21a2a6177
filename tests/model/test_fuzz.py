# SPDX-License-Identifier: GPL-2.0-only
"""Random guests on the engine, every root design and every paging mode: the size that fits a push.

The soak (``make soak``) does the same a million times over. A failure prints the command that shows it again.
"""

import pytest
from designs import every_design

from shadowmmu.check.fuzz import NPT, PAGING, Report, fuzz


def check(report: Report, operations: int) -> None:
    failure = report.failure
    assert failure is None, f"{failure.message}\n{failure.command}"
    assert report.operations == operations


@every_design
@pytest.mark.parametrize("mode", [*PAGING, *NPT])
def test_one_mode(mode: str, roots: str) -> None:
    """All the time in one mode, so that its own paths are gone through again and again."""
    report = fuzz(seed=100, operations=9_000, modes=(mode,), roots=roots, audit_every=100)
    check(report, 9_000)
    wanted = f"mode {mode}" if mode == "nonpaging" or mode in NPT else f"mode {mode} accepted"
    assert report.coverage[wanted] >= 2


@every_design
def test_all_modes(roots: str) -> None:
    """Guests that go from mode to mode; the coverage shows that the run was worth something."""
    report = fuzz(seed=1, operations=90_000, roots=roots, audit_every=500)
    check(report, 90_000)
    for outcome in (
        "access read completed",
        "access user write completed after FIXED",
        "access write of an entry completed after FIXED",
        "access write of an entry emulated after EMULATE",
        "access user fetch injected after INJECT",
        "access read emulated after EMULATE",
        "emulated write injected",
        "cr3 accepted keeping translations",
        "cr3 refused",
        "slot deleted",
        "swap done",
        "protect protected",
        "dirty some",
        "l1_store completed",
        "l1_store emulated",
        "vmrun accepted",
        "vmexit accepted",
    ):
        assert report.coverage[outcome] > 5, outcome
    for counter in ("mmu_flooded", "mmu_recycled", "mmu_pde_zapped", "pf_fast", "pf_spurious", "pf_mmio_spte_created"):
        assert report.counters[counter] > 5, counter


@every_design
def test_audited_at_every_step(roots: str) -> None:
    check(fuzz(seed=900, operations=4_000, roots=roots, audit_every=1), 4_000)


@every_design
def test_l2_with_tables_of_its_own(roots: str) -> None:
    """Nested tables alone: L2 gets each paging mode and faults by its own tables, and stores race with faults."""
    report = fuzz(seed=300, operations=12_000, modes=tuple(NPT), roots=roots, audit_every=100)
    check(report, 12_000)
    for outcome in ("l2_mode 2-level", "l2_mode 3-level", "l2_mode 4-level", "l2_register written"):
        assert report.coverage[outcome], outcome
    for part in ("faulted in L2", "race won"):
        assert sum(times for outcome, times in report.coverage.items() if part in outcome) > 5, part
