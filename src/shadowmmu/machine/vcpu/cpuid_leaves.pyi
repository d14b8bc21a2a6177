# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Sequence
from typing import final

@final
class CpuidLeaves:
    def __init__(self, rows: Sequence[tuple[int, int | None, bool, tuple[int, int, int, int]]]) -> None: ...
    def read(self, number: int, subleaf: int, cr4: int, apic_on: bool) -> tuple[int, int, int, int] | None: ...
