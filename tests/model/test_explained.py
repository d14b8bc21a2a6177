# SPDX-License-Identifier: GPL-2.0-only
"""Traces of random guests contradict nothing: all that a guest, its host and an L1 do in all modes, on every design and kernel."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from designs import every_design

from shadowmmu.check.fuzz.operations import MODES, Setup
from shadowmmu.check.fuzz.search import Episode, Report
from shadowmmu.check.fuzz.variety import settle
from shadowmmu.check.fuzz.worlds import author_of
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.runs.explained.source import explain_file
from shadowmmu.trace.engine import from_record
from shadowmmu.trace.text import HEADER, to_text

OPERATIONS = 1500


def trace_of(setup: Setup) -> Iterator[str]:
    """What the engine tells of a random guest, line by line."""
    episode = Episode(setup, Report())
    author = author_of(setup, episode.guest)
    episode.guest.vm.start_trace()
    for _ in range(OPERATIONS):
        op = author.next()
        outcome = episode.step(op)
        assert outcome is not None, episode.report.failure
        author.learn(op, outcome)
        yield from (to_text(from_record(record)) for record in episode.guest.vm.records())


@every_design
@pytest.mark.parametrize("kernel", KERNELS)
def test_random_guests_contradict_nothing(kernel: str, roots: str, tmp_path: Path) -> None:
    """From the VM's beginning, and from anywhere on."""
    path = tmp_path / "a.trace"
    for seed in range(4, 7):
        lines = list(trace_of(settle(Setup(seed, roots, MODES, 0, kernel))))
        for first in (0, random.Random(seed).randrange(1, len(lines))):
            path.write_text("\n".join([HEADER, *lines[first:]]) + "\n")
            told = explain_file(path)
            assert not told.anomaly_count and told.events == len(lines) - first, (seed, first, told.anomalies)
