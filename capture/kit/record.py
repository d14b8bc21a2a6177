# SPDX-License-Identifier: GPL-2.0-only
"""What hunts have looked at, a line a capture, so that a long hunt can be made in pieces and all of it be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from kit.errors import KitError

FILE = "record.jsonl"
RIGHT = ("exact", "equal")
FIRST = 1000
"""The seed that the first hunt of a set begins with."""


class Looked(msgspec.Struct, frozen=True):
    """What came of one guest of a hunt."""

    set: str
    host: str
    """What the machine was given, in QEMU's words and the kernel's."""
    guest: str
    seed: int
    events: int = 0
    """Of its capture; 0: there is none."""
    legacy: str = ""
    special: str = ""
    """The verdicts on either kind of roots: `exact`, `equal`, or what was found."""
    end: str = ""
    """Why the guest, or the replay on special roots, ended early; empty: it did not."""

    def told(self, events: int, legacy: str, special: str, until: str) -> Looked:
        """With what came of its capture."""
        return msgspec.structs.replace(self, events=events, legacy=legacy, special=special, end=self.end or until)

    @property
    def findings(self) -> list[str]:
        verdicts = (("legacy", self.legacy), ("special", self.special))
        return [f"{self.guest} on {roots} roots: {verdict}" for roots, verdict in verdicts if verdict not in ("", *RIGHT)]


class Record:
    """In the folder of a kernel's hunts."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def rows(self) -> list[Looked]:
        if not self._path.exists():
            return []
        try:
            return msgspec.json.Decoder(Looked).decode_lines(self._path.read_bytes())
        except msgspec.MsgspecError as error:
            raise KitError(f"{self._path} is no record of hunts: {error}; move it away, and hunt anew") from error

    def add(self, looked: Iterable[Looked]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(looked))

    def next_seed(self, name: str) -> int:
        """Behind all that were hunted of this set."""
        return max((row.seed + 1 for row in self.rows() if row.set == name), default=FIRST)


def told(rows: list[Looked]) -> Iterator[str]:
    """A line each set on each host, one for all, and each finding."""
    for name, host in dict.fromkeys((row.set, row.host) for row in rows):
        yield f"{name}, {host}: {summary([row for row in rows if (row.set, row.host) == (name, host)])}"
    yield f"in all: {summary(rows)}"
    yield from (finding for row in rows for finding in row.findings)


def summary(rows: list[Looked]) -> str:
    made = [row for row in rows if row.events]
    special = Counter(row.special for row in made)
    return (
        f"{len(made)} captures of {len(rows)} guests, {sum(row.events for row in made):,} events; "
        f"{sum(row.legacy == 'exact' for row in made)} exact on legacy roots, {special['exact']} exact and {special['equal']} equal on "
        f"special ones, {sum(bool(row.end) for row in made)} ended early; {sum(len(row.findings) for row in rows)} findings"
    )
