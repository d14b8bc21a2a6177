# SPDX-License-Identifier: GPL-2.0-only
"""Compares the kernel's counters with ours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.validate import UNMAPPED, is_end
from shadowmmu.check.compare.ignore import COUNTERS, TDP_COUNTERS, YIELDING_COUNTERS
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

PAGE = 4096


def compare_counters(kernel: Mapping[str, int], engine: Mapping[str, int], capture: Capture) -> tuple[int, list[tuple[str, int, int]]]:
    """How many were compared, and those that differ as (name, the kernel's, ours)."""
    yields = bool(capture.setup.quirks_off) or any(map(_yields, takewhile(lambda event: not is_end(event), capture.events)))
    more = YIELDING_COUNTERS if yields else frozenset()
    names = [name for name in COUNTERS if not (capture.setup.tdp_mmu and name in TDP_COUNTERS)]
    pairs = [(name, kernel.get(name, 0), engine.get(name, 0)) for name in names]
    return len(pairs), [(name, theirs, ours) for name, theirs, ours in pairs if theirs < ours or (theirs > ours and name not in more)]


def _yields(event: AnyEvent) -> bool:
    """The kernel goes through many entries of a memslot, and flushes if it lets another task in meanwhile."""
    if isinstance(event, e.Other) and event.ev == UNMAPPED:
        return int(event.fields["end"]) - int(event.fields["start"]) > PAGE
    return isinstance(event, e.ZapCollapsible)
