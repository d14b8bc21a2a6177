# SPDX-License-Identifier: GPL-2.0-only
"""What is not the same in two pictures of one VM: by table, entry by entry, what stood there before and what stands there after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from shadowmmu.look.data import Hex
from shadowmmu.look.picture import SPECIAL, Link, Mmio, MmuPicture, Picture, Row, Table


class Entry(NamedTuple):
    """One entry in words, as it is, and the guest's own beside it."""

    words: str
    entry: int
    guest: int | None


class Change(msgspec.Struct, kw_only=True):
    """Entries `first`..`last` of a table: None where there was, or is, none."""

    first: int
    last: int
    before: str | None
    after: str | None
    entry_before: Hex | None
    entry_after: Hex | None
    guest: Hex | None


class TableChange(msgspec.Struct, kw_only=True):
    """A table in which something changed, or that came or went. `where`: the indices that lead to it; `same`: entries as before."""

    vcpu: int
    mmu: str
    level: int
    where: list[int]
    before: str | None
    after: str | None
    same: int
    entries: list[Change]


class Changes(msgspec.Struct, kw_only=True):
    """`registers`: those of each vCPU that are not as before, in words. `pages`: how many shadow pages there are of each sort that are
    not as many."""

    registers: list[str]
    tables: list[TableChange]
    pages: dict[str, tuple[int, int]]


class _Seen(NamedTuple):
    """A table as one picture has it."""

    vcpu: int
    mmu: str
    where: tuple[int, ...]
    table: Table
    entries: dict[int, Entry]


def changes_between(before: Picture, after: Picture) -> Changes:
    old, new = dict(_tables(before)), dict(_tables(after))
    tables = [_compare(old.get(key), new.get(key)) for key in dict.fromkeys((*new, *old))]
    counts = dict.fromkeys((*before.tables, *after.tables))
    pages = {name: (before.tables.get(name, 0), after.tables.get(name, 0)) for name in counts}
    return Changes(
        registers=list(_registers(before, after)),
        tables=[one for one in tables if one is not None],
        pages={name: both for name, both in pages.items() if both[0] != both[1]},
    )


def _registers(before: Picture, after: Picture) -> Iterator[str]:
    for old, new in zip(before.vcpus, after.vcpus, strict=True):
        for name in ("cr0", "cr3", "cr4", "efer", "guest_mode"):
            was, now = getattr(old, name), getattr(new, name)
            if was != now:
                yield f"vCPU {new.vcpu}: {name.upper() if name != 'guest_mode' else name} {int(was):x} → {int(now):x}"


def _tables(picture: Picture) -> Iterator[tuple[tuple[object, ...], _Seen]]:
    """Tables by what makes them the same: gfn and role; one without a guest table by its place below the root."""
    for vcpu in picture.vcpus:
        for mmu in vcpu.mmus:
            if mmu.root is not None:
                yield from _below(vcpu.vcpu, mmu, mmu.root, ())


def _below(vcpu: int, mmu: MmuPicture, table: Table, where: tuple[int, ...]) -> Iterator[tuple[tuple[object, ...], _Seen]]:
    if table.repeated:
        return
    entries = {index: entry for row in table.rows for index, entry in _entries(row)}
    key = (vcpu, mmu.name, table.level, table.gfn, table.role) if table.gfn is not None else (vcpu, mmu.name, table.level, where)
    yield key, _Seen(vcpu, mmu.name, where, table, entries)
    for row in table.rows:
        if isinstance(row, Link):
            yield from _below(vcpu, mmu, row.table, (*where, row.index))


def _entries(row: Row) -> Iterator[tuple[int, Entry]]:
    if isinstance(row, Link):
        yield row.index, Entry(f"→ {name_of(row.table)}", row.entry, None if row.guest is None else row.guest.value)
        return
    step = 1 if isinstance(row, Mmio) else row.frames // (row.last - row.first + 1)
    for at in range(row.last - row.first + 1):
        gfn = row.gfn + at * step
        words = f"MMIO gfn {gfn:x}" if isinstance(row, Mmio) else f"gfn {gfn:x} {row.rights}{f' {row.note}' if row.note else ''}"
        yield row.first + at, Entry(words, row.entry + (at * step << 12), None if row.guest is None else row.guest.value)


def name_of(table: Table) -> str:
    """A table in words that stay while it is the same one."""
    gfn = "" if table.gfn is None else f" gfn {table.gfn:x}"
    star, kind = ("★ ", "") if table.kind == SPECIAL else ("", "" if table.kind == "shadow" else f" {table.kind}")
    return f"{star}l{table.level}{kind}{gfn}{' direct' if table.direct else ''}"


def _state(seen: _Seen | None) -> str | None:
    if seen is None:
        return None
    table = seen.table
    more = ((table.unsync, "unsync"), (table.unsync_children, f"{table.unsync_children} unsync below"), (table.obsolete, "obsolete"))
    return " ".join((name_of(table), *table.words, *(words for there, words in more if there)))


def _compare(old: _Seen | None, new: _Seen | None) -> TableChange | None:
    """None: nothing of it changed."""
    seen = new or old
    assert seen is not None
    was, now = old.entries if old else {}, new.entries if new else {}
    changed = [index for index in sorted({*was, *now}) if _words(was, index) != _words(now, index)]
    if not changed and _state(old) == _state(new):
        return None
    return TableChange(
        vcpu=seen.vcpu, mmu=seen.mmu, level=seen.table.level, where=list(seen.where), before=_state(old), after=_state(new),
        same=len(was.keys() & now.keys()) - sum(1 for index in changed if index in was and index in now),
        entries=list(_grouped(changed, was, now)),
    )  # fmt: skip


def _grouped(changed: list[int], was: dict[int, Entry], now: dict[int, Entry]) -> Iterator[Change]:
    """Neighbours that changed alike are told once, by the first of them."""
    kept: list[Change] = []
    sort: tuple[str, ...] = ()
    for index in changed:
        old, new = was.get(index), now.get(index)
        this = _sort(old), _sort(new)
        if kept and kept[-1].last + 1 == index and this == sort:
            kept[-1].last = index
            continue
        sort = this
        guest = (new or old or Entry("", 0, None)).guest
        kept.append(
            Change(
                first=index,
                last=index,
                before=old and old.words,
                after=new and new.words,
                entry_before=None if old is None else Hex(old.entry),
                entry_after=None if new is None else Hex(new.entry),
                guest=None if guest is None else Hex(guest),
            )
        )
    yield from kept


def _words(entries: dict[int, Entry], index: int) -> str:
    return entries[index].words if index in entries else ""


def _sort(entry: Entry | None) -> str:
    """Its words without the number in them; each table is one by itself."""
    return "" if entry is None else entry.words if entry.words.startswith("→") else re.sub(r"gfn \w+", "gfn", entry.words)
