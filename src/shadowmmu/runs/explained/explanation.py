# SPDX-License-Identifier: GPL-2.0-only
"""What a trace says, as data: what `explain` finds, `view` draws and --json prints."""

from __future__ import annotations

import msgspec

from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.answers import Answer


class Anomaly(msgspec.Struct):
    """What cannot have been so, in a trace of which nothing is missing."""

    event: int
    line: int
    what: str


class Rule(msgspec.Struct, kw_only=True):
    """A row of the table of origins, and how often it was seen."""

    event: str
    situation: str
    kernel: str
    rule: str
    first: int
    count: int = 0


class Step(msgspec.Struct):
    """An event of a fault: its number, what it told, and the kernel's function by whose rule it did."""

    number: int
    told: str
    kernel: str


class Path(msgspec.Struct, kw_only=True):
    """Faults that went the same way, and what came of them. `steps`: what the first of them caused."""

    outcome: str
    path: str
    count: int
    first: int
    steps: list[Step] = []


class FaultSeen(msgspec.Struct, kw_only=True):
    """One fault: its first event and how many it has. `error_code`, and the access that it says: None and "" where only the walk is
    in the trace."""

    event: int
    line: int
    address: Hex
    error_code: Hex | None
    access: str
    path: str
    outcome: str
    events: int


class RoleSeen(msgspec.Struct):
    """Pages that were asked for with this role."""

    role: Hex
    words: str
    count: int


class WalkedEntry(msgspec.Struct):
    """An entry of a walk in the kernel's log. `reserved`: bits of it that are reserved; None: not told."""

    level: int
    spte: Hex
    reserved: Hex | None


class Walked(msgspec.Struct):
    """A walk that the kernel's log drew, of `address`; None: of an entry that was being made."""

    line: int
    address: Hex | None
    entries: list[WalkedEntry]


class TableSeen(msgspec.Struct):
    """A guest table by level and gfn: the pages that shadow it, and how often a walk came through."""

    level: int
    gfn: Hex
    pages: list[str]
    walks: int
    below: list[TableSeen] = []


class Explanation(msgspec.Struct, kw_only=True):
    """What a trace says. `names`: events by kind; `hidden`: what its text does not show of roles."""

    source: str = ""
    kernel: str = ""
    form: str = ""
    lines: int = 0
    events: int = 0
    lost: int = 0
    gaps: int = 0
    unread: int = 0
    first_unread: str = ""
    vms: int = 1
    vcpus: int = 1
    notes: list[str] = []
    names: dict[str, int] = {}
    exits: dict[str, int] = {}
    hidden: list[str] = []
    roles: list[RoleSeen] = []
    paths: list[Path] = []
    faults: int = 0
    shown: list[FaultSeen] = []
    rules: list[Rule] = []
    answers: list[Answer] = []
    syncs: dict[str, int] = {}
    hierarchies: list[Walked] = []
    most_made: list[str] = []
    trees: list[TableSeen] = []
    anomalies: list[Anomaly] = []
    anomaly_count: int = 0
