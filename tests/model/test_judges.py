# SPDX-License-Identifier: GPL-2.0-only
"""The judges on a pager that is known: they accept it, and catch every fault planted in it."""

from functools import partial

import pager
import pytest

from shadowmmu.check.fuzz import PAGING, Kind, replay, shrink
from shadowmmu.check.fuzz import fuzz as random_operations

fuzz = partial(random_operations, modes=tuple(PAGING))  # the pager knows no nesting


def test_a_correct_pager_passes() -> None:
    report = fuzz(seed=1, operations=12_000, make_vm=pager.Pager, audit_every=0)
    assert report.failure is None, report.failure and report.failure.message
    assert report.operations == 12_000


@pytest.mark.parametrize("fault", pager.FAULTS)
def test_every_planted_fault_is_caught(fault: str) -> None:
    make = partial(pager.Pager, fault=fault)
    report = fuzz(seed=1, operations=40_000, make_vm=make, audit_every=0)
    assert report.failure is not None
    again = replay(report.failure.setup, report.failure.operations, make)
    assert again is not None and again.message == report.failure.message


def test_shrinking_leaves_the_essence() -> None:
    make = partial(pager.Pager, fault="invlpg keeps tables")
    report = fuzz(seed=1, operations=40_000, make_vm=make, audit_every=0)
    assert report.failure is not None
    small = shrink(report.failure, runs=300, make_vm=make)
    assert len(small.operations) < 20
    assert Kind.INVLPG in {op.kind for op in small.operations}
    assert small.signature == report.failure.signature


def test_runs_are_reproducible() -> None:
    first, second = (fuzz(seed=3, operations=4_000, make_vm=pager.Pager, audit_every=0) for _ in range(2))
    assert first.coverage == second.coverage
    assert first.coverage != fuzz(seed=4, operations=4_000, make_vm=pager.Pager, audit_every=0).coverage


def test_a_later_episode_is_the_first_of_its_own_seed() -> None:
    make = partial(pager.Pager, fault="not logged")
    report = fuzz(seed=1, operations=40_000, make_vm=make, audit_every=0)
    assert report.failure is not None
    setup, count = report.failure.setup, len(report.failure.operations)
    alone = fuzz(seed=setup.seed, operations=count, make_vm=make, audit_every=0)
    assert alone.failure is not None and alone.failure.message == report.failure.message
    assert f"--seed {setup.seed} --operations {count}" in report.failure.command
