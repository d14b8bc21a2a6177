# SPDX-License-Identifier: GPL-2.0-only
"""What a replay tells: data only."""

from __future__ import annotations

import msgspec

from shadowmmu import Vm
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins.origin import Origin


class Row(msgspec.Struct, frozen=True):
    """One place of the two streams, side by side; None: the stream has ended."""

    kernel: AnyEvent | None
    engine: AnyEvent | None
    differs: bool


class Page(msgspec.Struct, frozen=True):
    """The shadow page concerned."""

    hpa: int
    gfn: int
    role: int
    text: str
    """The role in the kernel's words."""
    special: bool


def page_at(vm: Vm, hpa: int) -> Page | None:
    """The shadow page at a host physical address; None: there is none."""
    view = vm.shadow_page(hpa)
    return None if view is None else Page(view.hpa, view.gfn, view.role, view.text, view.special)


class Divergence(msgspec.Struct, frozen=True):
    """The first thing in which engine and kernel differ."""

    what: str
    """One sentence."""
    index: int
    """Which event of the capture, from 0."""
    operation: str
    """What the guest or the host was doing."""
    rows: list[Row] = []
    page: Page | None = None
    equal_until: int | None = None
    """Just before this event of the capture nothing had happened yet that differs; None: `index`."""
    made_by: Origin | None = None
    """The rule behind what the engine did; None: it did nothing."""
    wanted_by: Origin | None = None
    """The rule by which it would have done what the kernel did, if that is an event of another kind."""
    kernel: str = ""
    """Whose functions these rules name: a series of Linux."""

    @property
    def state_before(self) -> int:
        """The event before which the state is the last one that both had."""
        return self.index if self.equal_until is None else self.equal_until


class ReplayResult(msgspec.Struct):
    """One capture's replay."""

    capture: str
    roots: str
    argument: str = ""
    """What the command line calls the capture; empty: by its name."""
    captured_on: str = "legacy"
    """The captured kernel's design of roots."""
    events: int = 0
    """Events compared."""
    entries: int = 0
    """Guest entries replayed."""
    dumps: int = 0
    """Dumps of the shadow tables compared, and their entries in all."""
    dump_entries: int = 0
    counters: int = 0
    """Counters compared."""
    injected: int = 0
    """Exceptions given to the guest, compared by vector and error code."""
    stores: int = 0
    """Plain stores of the guest, that our tables had to allow."""
    loads: int = 0
    """Values the guest read, found in our memory through our tables."""
    bugs: list[str] = []
    """WARNs of the kernel that the engine hit."""
    differences: dict[str, int] = {}
    """With roots that the kernel does not have: letter -> how often that difference from the kernel explained something."""
    until: str = ""
    """Why the replay ended before the capture did; empty: it did not."""
    parted: str = ""
    """What no known difference explained; from there on all that guest and user space see was equal, and right by oracle and audit."""
    divergence: Divergence | None = None

    @property
    def ok(self) -> bool:
        return self.divergence is None and not self.bugs


class Diverged(Exception):
    """Ends a replay; carries the report."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(divergence.what)
        self.divergence = divergence
