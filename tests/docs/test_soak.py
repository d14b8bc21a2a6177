# SPDX-License-Identifier: GPL-2.0-only
"""The page of clean random operations, and the grid that it is drawn from."""

from pathlib import Path

import soak

from shadowmmu.check.fuzz import MODES
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.engine.roots.designs import ROOT_DESIGNS


def test_the_grid_has_each_mode_design_and_kernel() -> None:
    fields = list(soak.grid())
    assert len(set(fields)) == len(fields) == (len(MODES) + 1) * len(ROOT_DESIGNS) * len(KERNELS)
    assert {field.modes for field in fields} == {*((mode,) for mode in MODES), MODES}


def test_a_table_replaces_the_one_before() -> None:
    done = {field: soak.Done(5, 1, 0.5, number) for number, field in enumerate(soak.grid())}
    page = soak.with_table(soak.PAGE.read_text(), soak.table(done, 5, 7))
    assert page == soak.with_table(page, soak.table(done, 5, 7))
    assert f"| pae | {', '.join(ROOT_DESIGNS)} | {', '.join(KERNELS)} | 45 |" in page
    assert f"{5 * len(done):,} operations on {len(done)} virtual machines, no violation" in page


def test_a_field_is_run_once(tmp_path: Path) -> None:
    field = next(soak.grid())
    done = soak.run(field, 3, 40, 1)
    assert done is not None
    assert done.operations == 40
    soak.Kept(3, 40, tmp_path).add(field, done)
    assert soak.Kept(3, 40, tmp_path).done == {field: done}
    assert soak.Kept(4, 40, tmp_path).done == {}
