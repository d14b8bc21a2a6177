# SPDX-License-Identifier: GPL-2.0-only
"""What a rerun tells: data only."""

from __future__ import annotations

import msgspec

from shadowmmu.check.compare.result import Divergence


class RerunResult(msgspec.Struct):
    """One capture's rerun."""

    capture: str
    roots: str
    exits: int = 0
    """Exits of the machine's CPU."""
    events: int = 0
    """Events found equal."""
    said: int = 0
    """Of these, what the guest said: values it read, faults it was given."""
    explained: dict[str, int] = msgspec.field(default_factory=dict)
    """Class of a difference between the CPUs -> how often."""
    dumps: int = 0
    """Dumps of the shadow tables compared, and their entries in all."""
    dump_entries: int = 0
    counters: int = 0
    """Counters compared."""
    bugs: list[str] = []
    """WARNs of the kernel that the engine hit."""
    divergence: Divergence | None = None

    @property
    def ok(self) -> bool:
        return self.divergence is None and not self.bugs
