# SPDX-License-Identifier: GPL-2.0-only
"""Walks of shadow tables that the kernel's log drew: reserved bits in an entry, told since 3.x from the root down.

    get_mmio_spte: reserved bits set on MMU-present spte, addr 0x7f1000, hierarchy:
    ------ spte = 0x10a2b4907 level = 4, rsvd bits = 0x0

Before 5.12: `detect reserved bits on spte, addr 0x7f1000, dump hierarchy:` and `------ spte 0x10a2b4907 level 4.`
"""

from __future__ import annotations

import re

import msgspec

_HEAD = re.compile(r"reserved bits (?:set )?on (?:MMU-present )?spte, addr (?:0x)?([0-9a-f]{1,16})\b")
_STEP = re.compile(r"------ spte (?:= )?(?:0x)?([0-9a-f]{1,16})\b,? level (?:= )?(\d{1,2})[.,]?(?: rsvd bits = (?:0x)?([0-9a-f]{1,16})\b)?")
_MADE = re.compile(r"\bspte = 0x([0-9a-f]{1,16})\b, level = (\d{1,2}), rsvd bits = 0x([0-9a-f]{1,16})\b")
MOST, MOST_STEPS = 16, 8


class Step(msgspec.Struct):
    """An entry of the walk. `reserved`: the bits that may not be set; -1: the kernel does not say."""

    level: int
    spte: int
    reserved: int = -1


class Hierarchy(msgspec.Struct):
    """One walk. `address`: -1: it is of an entry that was just being made."""

    line: int
    address: int
    steps: list[Step] = []


class Hierarchies:
    """Takes lines of a kernel's log; `line` says whether it was part of such a walk."""

    def __init__(self) -> None:
        self.seen: list[Hierarchy] = []
        self.count = 0

    def line(self, number: int, line: str) -> bool:
        if found := _HEAD.search(line):
            self._add(Hierarchy(number, int(found[1], 16)))
        elif found := _STEP.search(line):
            self._step(Step(int(found[2]), int(found[1], 16), int(found[3], 16) if found[3] else -1))
        elif found := _MADE.search(line):
            self._add(Hierarchy(number, -1, [Step(int(found[2]), int(found[1], 16), int(found[3], 16))]))
        return found is not None

    def _add(self, hierarchy: Hierarchy) -> None:
        self.count += 1
        if self.count <= MOST:
            self.seen.append(hierarchy)

    def _step(self, step: Step) -> None:
        if not self.seen:
            self._add(Hierarchy(0, -1))
        if self.count <= MOST and len(self.seen[-1].steps) < MOST_STEPS:
            self.seen[-1].steps.append(step)
