# SPDX-License-Identifier: GPL-2.0-only
"""Which shadow pages a VM has, told from its events: so that tables of two VMs can be compared by what they shadow."""

from __future__ import annotations

from typing import NamedTuple

from shadowmmu.engine.arena.role import Role
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

PAGE = 0xFFF
LEVEL, INVALID, GUEST_MODE = int(Role.LEVEL), int(Role.INVALID), int(Role.GUEST_MODE)
_SHADOWS_NOTHING = int(Role.DIRECT | Role.PASSTHROUGH)


class Key(NamedTuple):
    """What a shadow page is found by in the hash: no two valid pages of a VM have the same."""

    gfn: int
    role: int

    @property
    def level(self) -> int:
        return self.role & LEVEL

    @property
    def guards(self) -> bool:
        """It shadows a table of the guest, which is therefore write-protected (or unsync, at level 1)."""
        return not self.role & _SHADOWS_NOTHING


def key_of(event: e.PageEvent) -> Key:
    return Key(int(event.gfn), int(event.role) & ~INVALID)


class Census:
    """The shadow pages of one VM; special ones, which shadow nothing, have no name."""

    def __init__(self) -> None:
        self.at: dict[int, Key] = {}
        """Table -> the page that it last belonged to."""
        self.valid: dict[Key, int] = {}
        """Page -> its table."""
        self.unsync: set[Key] = set()
        self.live: set[int] = set()
        """Tables in use, those of zapped roots included: n_used_mmu_pages."""
        self.tables: dict[int, set[Key]] = {}
        """gfn of a guest table -> the pages that shadow it."""
        self.special: set[int] = set()
        """Tables of special pages."""
        self.births: dict[Key, int] = {}
        """Page -> the input upon which it was made."""
        self.unvisited: set[Key] = set()
        """Pages that the other VM has looked up since: its count of writes to them began anew."""
        self.now = 0
        """Which input is under way."""

    def name(self, hpa: int) -> Key | None:
        """The page whose table holds the byte at `hpa`; None: a root without a guest table, special or bare."""
        return self.at.get(hpa & ~PAGE)

    def follow(self, event: AnyEvent) -> None:
        """Pages come, go, and lose and regain touch with their guest tables."""
        if isinstance(event, e.GetPage):
            self._get(event)
        elif isinstance(event, e.PrepareZapPage):
            self._zap(event)
        elif isinstance(event, e.UnsyncPage):
            self.unsync.add(key_of(event))
        elif isinstance(event, e.SyncPage):
            self.unsync.discard(key_of(event))
        elif isinstance(event, e.SpecialAlloc):
            self.at.pop(event.spt, None)
            self.special.add(event.spt)
        elif isinstance(event, e.SpecialFree):
            self.special.discard(event.spt)

    def _get(self, event: e.GetPage) -> None:
        key = key_of(event)
        self.at[event.spt] = key
        if event.created or key not in self.valid:
            self.valid.pop(key, None)
            self.births[key] = self.now
        self.valid[key] = event.spt
        self.live.add(event.spt)
        if key.guards:
            self.tables.setdefault(key.gfn, set()).add(key)

    def _zap(self, event: e.PrepareZapPage) -> None:
        key = key_of(event)
        if not event.root_count:
            self.live.discard(event.spt)
        if self.valid.get(key) == event.spt:
            del self.valid[key]
            self.unsync.discard(key)
            self.tables.get(key.gfn, set()).discard(key)
