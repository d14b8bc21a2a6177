# SPDX-License-Identifier: GPL-2.0-only
"""Reverse maps as data: for each guest page, the shadow entries that map it. Neighbours mapped alike are one row."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shadowmmu import ShadowPageView, Vm
from shadowmmu.look.data import Hex


class Place(msgspec.Struct):
    """A shadow entry, in the first page's case: `index` in the table at `hpa`, which is of `level` and stands for `gfn`."""

    hpa: Hex
    level: int
    gfn: Hex
    direct: bool
    index: int


class ReverseMap(msgspec.Struct, kw_only=True):
    """Guest pages `first`..`last`, each mapped by one entry in every place: of the n-th page, n entries after the first's."""

    address_space: int
    first: Hex
    last: Hex
    places: list[Place]


def reverse_maps(vm: Vm) -> list[ReverseMap]:
    """The reverse map of every mapped guest page, by address space, level and gfn."""
    tables = {page.hpa: page for page in vm.shadow_pages()}
    rows: list[ReverseMap] = []
    for address_space, first, places in _mapped(vm, tables):
        level = places[0].level
        last = Hex(first + (1 << 9 * (level - 1)) - 1)
        if not rows or not _continues(rows[-1], address_space, first, places):
            rows.append(ReverseMap(address_space=address_space, first=first, last=last, places=places))
        else:
            rows[-1].last = last
    return rows


def _mapped(vm: Vm, tables: dict[int, ShadowPageView]) -> Iterator[tuple[int, Hex, list[Place]]]:
    """(address space, gfn, entries) of each gfn and level that has any."""
    for slot in vm.memslots():
        for level in (1, 2, 3):
            step = 4096 << 9 * (level - 1)
            for at in range(slot.gpa + -slot.gpa % step, slot.gpa + slot.size, step):
                entries = vm.rmap(at, level, slot.address_space)
                if entries:
                    yield slot.address_space, Hex(at >> 12), sorted((_place(tables, hpa) for hpa in entries), key=lambda place: place.hpa)


def _place(tables: dict[int, ShadowPageView], hpa: int) -> Place:
    page = tables[hpa & ~0xFFF]
    return Place(Hex(page.hpa), page.level, Hex(page.gfn), page.direct, (hpa & 0xFFF) // 8)


def _continues(row: ReverseMap, address_space: int, first: int, places: list[Place]) -> bool:
    """`places` of the page behind the row's last are the next entries of the row's tables."""
    if row.address_space != address_space or row.last + 1 != first or row.places[0].level != places[0].level:
        return False
    offset = first - row.first >> 9 * (places[0].level - 1)
    return [(place.hpa, place.index + offset) for place in row.places] == [(place.hpa, place.index) for place in places]
