# SPDX-License-Identifier: GPL-2.0-only
"""Fuzzes the readers of outside input for as long as one says, each in turn, with seeds that nobody has used before.

Example: python tools/fuzz_readers.py --seconds 600
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Any

import cyclopts
from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
ROUND = 50
"""Examples of one reader before the next has its turn."""
MEMORY = 8 << 30
"""Address space that a reader may take: one that takes more is at fault."""


def main(*, seconds: float = 60.0, first: Annotated[int | None, cyclopts.Parameter(name="--seed")] = None) -> int:
    """Fuzz every reader in turns.

    Parameters
    ----------
    seconds
        How long.
    first
        Seed of the first turn, to see a find again.
    """
    readers: Any = import_module("readers")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    number = SystemRandom().randrange(1 << 32) if first is None else first
    end, done = time.monotonic() + seconds, Counter[str]()
    while time.monotonic() < end:
        for name, holds in readers.PROPERTIES.items():
            budget = settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            turn: Any = seed(number)(budget(given(readers.CHOICES)(holds)))  # type: ignore[no-untyped-call]
            try:
                turn()
            except Exception as error:
                print(f"the reader of {name} ends with {error!r}; again: python tools/fuzz_readers.py --seconds 1 --seed {number}")
                raise
            done[name] += ROUND
        number += 1
    print(", ".join(f"{name} {count:,}" for name, count in done.items()))
    return 0


if __name__ == "__main__":
    sys.exit(cyclopts.run(main))
