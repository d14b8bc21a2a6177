# SPDX-License-Identifier: GPL-2.0-only
"""Draws an `AddressPicture`: a table of the guest's own entries, one of nested entries beside shadow entries, and the way in a line."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from shadowmmu.look.address import MAPPED, MMIO, NESTED_END, NO_ROOT, NOT_YET, OWN_END, AddressPicture, ShadowEntry, TableEntry
from shadowmmu.view.draw_picture import table_name

NONE = "·"
ENDS = {
    MMIO: "the shadow marks it as no memory: an access is emulated",
    NOT_YET: "the shadow does not have it yet: an access faults, and the MMU looks again",
    NO_ROOT: "no root is loaded: the next entry makes one",
    OWN_END: "the guest's own tables do not map it: an access is the guest's page fault",
    NESTED_END: "L1's nested tables do not map it: an access is a nested page fault for L1",
}


def draw_address(picture: AddressPicture) -> RenderableType:
    """Where the address leads."""
    parts: list[RenderableType] = [Text.assemble((f"vCPU {picture.vcpu}", "bold"), f" · address {picture.address:x} of {picture.whose}")]
    if picture.own:
        parts += [Text(), Text(f"its own tables, {picture.own_mode}, which the CPU walks", style="bold"), _own(picture)]
    if picture.shadow or picture.beside:
        parts += [Text(), Text(_shadowed(picture), style="bold"), _beside(picture)]
    return Group(*parts, Text(), *_ways(picture), *_rights(picture))


def _shadowed(picture: AddressPicture) -> str:
    if picture.nested:
        return f"L1's nested tables at {picture.pgd:x}, {picture.mode}, and their shadow"
    return f"its own tables, {picture.own_mode}, and their shadow" if picture.beside else "direct tables, which shadow none"


def _grid(*columns: str) -> Grid:
    """A grid whose columns but the first are numbers."""
    grid = Grid(*columns, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in grid.columns[1:]:
        column.justify = "right"
    return grid


def _own(picture: AddressPicture) -> Grid:
    places = ("L2 physical", "L1 physical") if picture.nested else ("entry at",)
    grid = _grid("level", *places, "entry", "allows")
    for entry in picture.own:
        where = (_number(entry.at), _number(entry.l1)) if picture.nested else (_number(entry.at),)
        grid.add_row(f"l{entry.level}", *where, _number(entry.value), entry.rights or NONE)
    return grid


def _beside(picture: AddressPicture) -> Grid:
    """A row a level: the entry that was made by the guest, or by L1, and the shadow's."""
    who = "nested" if picture.nested else "guest"
    columns = (f"{who} entry at", f"{who} entry", "allows") if picture.beside else ()
    grid = _grid("shadow table", *columns, "shadow entry at", "shadow entry", "allows")
    made = {entry.level: entry for entry in picture.beside}
    shadow = {entry.table.level: entry for entry in picture.shadow}
    for level in sorted(made.keys() | shadow.keys(), reverse=True):
        guest = _made_words(made.get(level)) if picture.beside else ()
        grid.add_row(*_shadow_name(level, shadow), *guest, *_shadow_words(shadow.get(level)))
    return grid


def _number(value: int | None) -> str:
    return NONE if value is None else f"{value:x}"


def _made_words(entry: TableEntry | None) -> tuple[str, str, str]:
    if entry is None:
        return NONE, NONE, NONE
    return "register" if entry.at is None else f"{entry.at:x}", _number(entry.value), entry.rights or NONE


def _shadow_name(level: int, shadow: dict[int, ShadowEntry]) -> tuple[Text]:
    return (table_name(shadow[level].table) if level in shadow else Text(f"l{level} not there", style="dim"),)


def _shadow_words(entry: ShadowEntry | None) -> tuple[str, str, str]:
    if entry is None:
        return NONE, NONE, NONE
    return f"{entry.at:x}", f"{entry.value:x}" if entry.value else NONE, entry.rights or NONE


def _ways(picture: AddressPicture) -> Iterator[Text]:
    """From address to address; then what the end means, if it is not host memory."""
    way = [f"{picture.address:x}"]
    if picture.physical is not None:
        whose = "guest" if picture.whose == "guest" else "L2" if picture.nested else "L1"
        way.append(f"{whose} physical {picture.physical:x}")
    if picture.nested and picture.gpa is not None:
        way.append(f"L1 physical {picture.gpa:x}")
    if picture.host is not None:
        way.append(f"host {picture.host:x}")
    yield Text(" → ".join(way), style="bold")
    if picture.ends != MAPPED:
        yield Text(ENDS[picture.ends])
    elif picture.host != picture.memory:
        now = "nothing" if picture.memory is None else f"host {picture.memory:x}"
        yield Text(f"stale: the tables and memslots now lead to {now}; the shadow has not been flushed since they changed", style="red")


def _rights(picture: AddressPicture) -> Iterator[Text]:
    """What an access may do: what each sort of tables allows together. The CPU needs all of them."""
    own, beside, shadow = picture.allows
    told = (("its own tables", own), ("nested tables" if picture.nested else "its own tables", beside), ("shadow", shadow))
    words = " · ".join(f"{name} {letters}" for name, letters in told if letters) + (f" {picture.note}" if picture.note else "")
    if words:
        yield Text(f"allowed: {words}   (read, write, execute, user)")
