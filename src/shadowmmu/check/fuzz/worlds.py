# SPDX-License-Identifier: GPL-2.0-only
"""Which world an episode is of: tables in the CPU's own paging formats, or L1's extended page tables. The seed says."""

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.check.fuzz.ept_author import EptAuthor
from shadowmmu.check.fuzz.ept_guest import EptGuest
from shadowmmu.check.fuzz.guest_author import GuestAuthor
from shadowmmu.check.fuzz.operations import EPT, Op, Setup

SELDOM = 0.1
"""How often it is EPT where a run is of both: an operation takes twice as long there."""


class Author(Protocol):
    """Invents operations, and hears what came of them."""

    def next(self) -> Op: ...
    def learn(self, op: Op, outcome: str) -> None: ...


def guest_of(setup: Setup, make_vm: Callable[..., Any]) -> Guest | EptGuest:
    """The VM of an episode."""
    extended = [mode for mode in setup.modes if mode in EPT]
    if not extended or (len(extended) < len(setup.modes) and Random(f"world {setup.seed}").random() >= SELDOM):
        return Guest(setup, make_vm)
    return EptGuest(setup, make_vm)


def author_of(setup: Setup, guest: Guest | EptGuest) -> Author:
    """Who writes it."""
    return EptAuthor(setup, guest) if isinstance(guest, EptGuest) else GuestAuthor(setup, guest)
