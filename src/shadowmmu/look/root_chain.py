# SPDX-License-Identifier: GPL-2.0-only
"""The root that a guest gets, before it runs: the tables from its top down to the first that stands for one of the guest's."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

LOWEST = 3
"""Levels that the hardware walks at least: below it the root has no table of the guest to stand for."""


class RootPicture(msgspec.Struct, kw_only=True):
    """What a sort of root looks like on either design."""

    whose: str
    special: str
    legacy: str


class Paging(NamedTuple):
    """What is shadowed: levels of the guest's tables (0: it has none), and levels that the hardware walks."""

    levels: int
    walked: int


def shadow_paging(levels: int) -> Paging:
    """The hardware walks as many as the guest has, but not less than three."""
    return Paging(levels, max(levels, LOWEST))


def picture(whose: str, paging: Paging) -> RootPicture:
    return RootPicture(whose=whose, special=_chain(paging, "★ l{}"), legacy=_chain(paging, "l{} bare"))


def _chain(paging: Paging, above: str) -> str:
    """`above`: how a table that stands for none of the guest's is written."""
    first = paging.levels if paging.levels > LOWEST else LOWEST - 1
    if paging.levels > LOWEST:
        above = "l{} passthrough"
    return " → ".join([*(above.format(level) for level in range(paging.walked, first, -1)), f"l{first}"])
