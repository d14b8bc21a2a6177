# SPDX-License-Identifier: GPL-2.0-only
"""Counts of kinds that a trace may invent without end."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

Kind = TypeVar("Kind")


def keep_commonest(counts: Counter[Kind], most: int) -> bool:
    """When there are twice as many kinds as `most`, drop all but the most frequent. Says whether some were dropped."""
    if len(counts) <= 2 * most:
        return False
    kept = dict(counts.most_common(most))
    counts.clear()
    counts.update(kept)
    return True
