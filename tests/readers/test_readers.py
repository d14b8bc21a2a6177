# SPDX-License-Identifier: GPL-2.0-only
"""Readers of outside input, fuzzed with a fixed seed and budget; `make fuzz-readers` does more of the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from readers import CHOICES, PROPERTIES

EXAMPLES = {"capture file": 60, "kit folder": 60, "arguments": 60}
"""Those that replay or run; of the others there are more."""


@pytest.mark.parametrize("reader", PROPERTIES)
def test_a_reader_reads_or_refuses(reader: str) -> None:
    @settings(
        max_examples=EXAMPLES.get(reader, 300), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(CHOICES)
    def holds(choose: random.Random) -> None:
        PROPERTIES[reader](choose)

    holds()
