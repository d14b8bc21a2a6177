# SPDX-License-Identifier: GPL-2.0-only
"""What a benchmark finds: rows of one form, and the clock they are measured by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

ROUNDS = 5


class Row(NamedTuple):
    """One figure, and what it is held beside: measured in the same run, in the same unit.

    ratio   figure to `peer`, nanoseconds and seconds to each other, or rates
    spread  of the ratio, where rounds of both sides took turns: its 10th and 90th percentile
    """

    topic: str
    work: str
    figure: float
    unit: str
    beside: str = ""
    peer: float | None = None
    spread: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        return self.figure / self.peer if self.peer else None


Rows = Iterator[Row]


def timed(action: Callable[[], object]) -> float:
    """CPU seconds."""
    start = time.process_time()
    action()
    return time.process_time() - start


def best(action: Callable[[], object], count: int = 1, rounds: int = ROUNDS) -> float:
    """CPU nanoseconds of one of `count` that `action` does, in the best round: what disturbs a round only adds to it."""
    return min(timed(action) for _ in range(rounds)) / count * 1e9
