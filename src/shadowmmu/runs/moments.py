# SPDX-License-Identifier: GPL-2.0-only
"""Moments of a run as people name them: an exit by its number, or "first unsync of gfn 41d", "third root", "2nd kvm_mmu_sync_page"."""

from __future__ import annotations

import re

from shadowmmu.engine.face.types import EventRecord
from shadowmmu.errors import BadInput
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.trace.engine import from_record
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.kernel import CLASSES

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
WORDS = {
    "unsync": "kvm_mmu_unsync_page", "sync": "kvm_mmu_sync_page", "zap": "kvm_mmu_prepare_zap_page", "page": "kvm_mmu_get_page",
    "root": "mmu_load", "fault": "mmu_page_fault", "invlpg": "invlpg", "walk": "kvm_mmu_pagetable_walk", "entry": "kvm_mmu_set_spte",
    "store": "pte_write", "flush": "guest_tlb_flush", "injection": "inject_page_fault",
    "mmio": "mark_mmio_spte", "special": "special_alloc",
}  # fmt: skip
"""What people say -> the kernel's name of the event."""
_EXITS = {kind.value.casefold(): kind for kind in ExitKind}
_PHRASE = re.compile(r"(?:(\w+) )?(.+?)(?: of gfn (?:0x)?([0-9a-f]{1,13}))?(?: of level (\d))?")
REMEDY = 'write an exit\'s number, or as "first unsync of gfn 41d", "third root", "2nd CR write"'


class Moment:
    """The exit at which something happens for the `nth` time; `on_exit` counts, `exit` is its number once it has come."""

    def __init__(self, text: str) -> None:
        self.text, self.exit = text, 0
        self.name, self.nth = "", 1
        self.kind: ExitKind | None = None
        self.gfn: int | None = None
        self.level: int | None = None
        self._seen = 0
        self._parse(text)

    def _parse(self, text: str) -> None:
        """Raises BadInput."""
        if text.isdecimal() and len(text) < 12 and int(text) > 0:
            self.nth = int(text)
            return
        found = _PHRASE.fullmatch(" ".join(text.split()))
        which, what, gfn, level = found.groups() if found else (None, "", None, None)
        if which is not None and (nth := _ordinal(which)):
            self.nth = nth
        elif which is not None:
            what = f"{which} {what}"
        self.gfn, self.level = int(gfn, 16) if gfn else None, int(level) if level else None
        self.kind = _EXITS.get(what.casefold())
        name = WORDS.get(what, what)
        if self.kind is None and (name not in CLASSES or name in ("print", "other")):
            raise BadInput(f"{text!r} is no moment of a run: {REMEDY}; {what!r} is none of {', '.join(WORDS)}, nor an event or an exit")
        self.name = name if self.kind is None else ""

    def on_exit(self, machine: Machine, exit_: Exit, records: list[EventRecord]) -> bool:
        """Whether it has come."""
        if self.name:
            self._seen += sum(self._is_it(from_record(record)) for record in records)
        else:
            self._seen += self.kind is None or exit_.kind is self.kind
        if self._seen >= self.nth and not self.exit:
            self.exit = machine.exits
        return bool(self.exit)

    def _is_it(self, event: AnyEvent) -> bool:
        if event.name != self.name or not getattr(event, "created", True):
            return False
        level = getattr(event, "level", None) if hasattr(event, "level") else getattr(event, "role", 0) & 15
        return (self.gfn is None or self.gfn == _gfn(event)) and (self.level is None or self.level == level)


def _gfn(event: AnyEvent) -> int | None:
    """The guest page that an event is about."""
    for name in ("gfn", "gpa", "addr", "gva"):
        value = getattr(event, name, None)
        if value is not None:
            return int(value) if name == "gfn" else int(value) >> 12
    return None


def _ordinal(word: str) -> int:
    """0: it is none."""
    if word in ORDINALS:
        return ORDINALS.index(word) + 1
    found = re.fullmatch(r"(\d{1,9})(?:st|nd|rd|th)", word)
    return int(found[1]) if found else 0
