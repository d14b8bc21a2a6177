# SPDX-License-Identifier: GPL-2.0-only
"""How far the kernel's counters are ahead of those of a VM with other roots, by the events and answers of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from shadowmmu import Outcome
from shadowmmu.check.compare.ignore import COUNTERS
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

ANSWERS = {Outcome.FIXED: "pf_fixed", Outcome.EMULATE: "pf_emulate", Outcome.SPURIOUS: "pf_spurious"}
EVENTS: dict[str, type[AnyEvent]] = {
    "mmu_cache_miss": e.GetPage,
    "mmu_shadow_zapped": e.PrepareZapPage,
    "mmu_pte_write": e.PteWrite,
    "invlpg": e.Invlpg,
}
RSVD = 8
UNCOUNTED = (e.MmuPageFault, e.MmuPageFaultRet, e.CheckMmioSpte, e.HandleMmioPageFault)
COUNTED = {"pf_taken", *EVENTS, *ANSWERS.values()}
"""Counters that count events or answers; the others count what no event tells."""


class CounterLead:
    """Counter -> the kernel's lead."""

    def __init__(self) -> None:
        self.lead: Counter[str] = Counter()

    def count(self, events: Iterable[AnyEvent], sign: int) -> None:
        """`sign`: 1 for the kernel's, -1 for ours."""
        for event in events:
            for name, kind in EVENTS.items():
                if isinstance(event, kind) and not (isinstance(event, e.GetPage) and not event.created):
                    self.lead[name] += sign

    def count_fault(self, code: int, outcome: object, events: Iterable[AnyEvent], sign: int) -> None:
        """A fault on a mark of MMIO, or on an address that is known to be MMIO, is emulated before it is counted."""
        if code & RSVD and outcome == Outcome.EMULATE and all(isinstance(event, UNCOUNTED) for event in events):
            return
        self.lead["pf_taken"] += sign
        if isinstance(outcome, Outcome) and outcome in ANSWERS:
            self.lead[ANSWERS[outcome]] += sign

    def differences(self, kernel: Mapping[str, int], ours: Mapping[str, int]) -> Iterator[str]:
        """Counters that differ by more or less than that."""
        return (name for name in COUNTERS if kernel[name] - ours[name] != self.lead[name])
