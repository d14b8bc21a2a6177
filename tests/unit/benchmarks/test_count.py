# SPDX-License-Identifier: GPL-2.0-only
"""The gate of instruction counts: what is recorded, what counts as a rise, and what it counts by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import count

NAMES = {f"{mode.name}: {touch.name}" for mode, _, touch in count.steps() if touch.name}


def test_each_work_is_recorded() -> None:
    recorded = json.loads(count.RECORDED.read_text())
    assert recorded["ratios"].keys() == NAMES
    assert recorded["compilers"]


def test_a_rise_of_two_percent_is_told() -> None:
    recorded = {"level": 1.25, "risen": 1.25, "fallen": 1.25}
    counts = [count.Count("level", 1274, 1000), count.Count("risen", 1276, 1000), count.Count("fallen", 900, 1000)]
    assert count.judge(counts, recorded) == ["risen: the ratio is 1.276, recorded 1.250"]


def test_what_was_never_recorded_is_told() -> None:
    assert count.judge([count.Count("new", 10, 10)], {}) == ["new: the ratio is 1.000, recorded 0.000"]


def test_the_engine_is_counted_in_its_own_loop() -> None:
    assert count.engine_range().startswith("__pyx_pw_9shadowmmu_6engine_4face_4vcpu_4Vcpu_")


def test_a_dump_is_read(tmp_path: Path) -> None:
    dump = tmp_path / "out.1"
    dump.write_text("version: 1\ndesc: Trigger: --dump-after=touch_range\nevents: Ir\nsummary: 6413872\n\nob=(1) /lib/x\n")
    assert count.instructions(dump) == 6413872
