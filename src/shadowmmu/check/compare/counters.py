# SPDX-License-Identifier: GPL-2.0-only
"""Compares the kernel's counters with ours."""

from __future__ import annotations

from collections.abc import Mapping

from shadowmmu.captures.capture import Setup
from shadowmmu.check.compare.ignore import counters_of


def compare_counters(kernel: Mapping[str, int], engine: Mapping[str, int], setup: Setup) -> tuple[int, list[tuple[str, int, int]]]:
    """How many were compared, and those that differ as (name, the kernel's, ours)."""
    pairs = [(name, kernel.get(name, 0), engine.get(name, 0)) for name in counters_of(setup)]
    return len(pairs), [pair for pair in pairs if pair[1] != pair[2]]
