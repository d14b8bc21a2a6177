# SPDX-License-Identifier: GPL-2.0-only
"""Compares the kernel's counters with ours."""

from __future__ import annotations

from collections.abc import Mapping

from shadowmmu.check.compare.ignore import COUNTERS, TDP_COUNTERS


def compare_counters(kernel: Mapping[str, int], engine: Mapping[str, int], tdp_mmu: bool) -> tuple[int, list[tuple[str, int, int]]]:
    """How many were compared, and those that differ as (name, the kernel's, ours)."""
    names = [name for name in COUNTERS if not (tdp_mmu and name in TDP_COUNTERS)]
    pairs = [(name, kernel.get(name, 0), engine.get(name, 0)) for name in names]
    return len(pairs), [pair for pair in pairs if pair[1] != pair[2]]
