# SPDX-License-Identifier: GPL-2.0-only
"""Reads the lines that the VMM wrote into the trace: what the guest says (`G`), what the host does (`H`)."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from shadowmmu.trace.events import Marker

DECIMAL = frozenset({"seq", "vcpu", "op", "l2op", "hostcall", "len", "write", "id", "slot", "mode", "exit_reason", "cpl"})
CREATES_VM = "H create vm"
CLOSED_VM = "H closed"
TURNS_QUIRKS_OFF = "noquirks"
CREATES_VCPU = "H create vcpu"


class Mark(msgspec.Struct, frozen=True):
    """`H slot id=2 flags=0 ...` has action "slot"; `G seq=3 op=1` has action "op"."""

    who: str
    action: str
    fields: dict[str, int]
    number: int = 0
    """A bare number behind the action (decimal)."""

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self.fields


@lru_cache(maxsize=1 << 14)
def parse(marker: Marker) -> Mark:
    who, *words = marker.text.split() or [""]
    fields: dict[str, int] = {}
    plain = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            plain.append(word)
            continue
        fields[name] = _number(name, text)
    number = int(plain[-1]) if plain and plain[-1].isdigit() else 0
    if who == "G":
        action = plain[0] if plain else next((name for name in fields if name != "seq"), "")
    else:
        action = plain[0] if plain else next(iter(fields), "")
    return Mark(who, action, fields, number)


def _number(name: str, text: str) -> int:
    try:
        return int(text, 10 if name in DECIMAL else 16)
    except ValueError:
        return 0
