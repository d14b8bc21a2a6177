# SPDX-License-Identifier: GPL-2.0-only
"""The machine's CPU with what the captured CPU does otherwise: done here as it does it, and counted.

The captures come from QEMU 7.2's AMD-V; the machine runs on Unicorn 2.1.4, which is QEMU 5.0, with mends. Each class is told at
length in docs/rerun.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.loop.injection import Rules
from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.machine.vcpu.pending import Origin, Pending
from shadowmmu.x86.pferr import Pferr

_RSVD, _PRESENT = int(Pferr.RSVD), int(Pferr.PRESENT)
RESERVED_WITHOUT_P = "reserved bit without P"
NESTED_ACCESSED = "A of nested entries"
ACCESSED_PDPTE = "A in PDPTEs"
PLAIN_SECOND = "fault in an injection"
CLASSES = {
    RESERVED_WITHOUT_P: "QEMU leaves P out of the error code of a reserved-bit fault; hardware sets it, and so does this machine",
    NESTED_ACCESSED: "QEMU sets A in the last level of nested page tables, Unicorn does not: taken over from the dumps",
    ACCESSED_PDPTE: "QEMU sets A in PDPTEs, where it is reserved: under nested paging guests see it, and KVM refuses to load them",
    PLAIN_SECOND: "QEMU forgets what it was injecting when that faults without an exit; hardware makes a double fault of the two",
}
"""Name of each class of differences, and its reason."""


class CapturedCpu(UnicornCpu, Rules):
    """One vCPU's processor; `adapted` counts what it did otherwise than the machine's, by class."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.adapted: Counter[str] = Counter()
        self.pause_at: int | None = None
        """An address before which the next run stops, if it gets there."""

    def run(self, until: int | None = None) -> Exit:
        pause, self.pause_at = self.pause_at, None
        exit_ = super().run(pause if until is None else until)
        if until is None is not pause:
            self.all_code_changed()  # what is translated ends there
            if exit_.kind is ExitKind.HLT and self.state().rip == pause:
                return Exit(ExitKind.INTERRUPTED)
        if exit_.kind in (ExitKind.PAGE_FAULT, ExitKind.NESTED_PAGE_FAULT):
            return exit_._replace(error_code=self.error_code(exit_.error_code))
        return exit_

    def error_code(self, code: int) -> int:
        """The error code that the captured CPU gives for a page fault."""
        if code & _RSVD and code & _PRESENT:
            self.adapted[RESERVED_WITHOUT_P] += 1
            return code & ~_PRESENT
        return code

    def second_event(self, first: Pending, second: Pending) -> Event:
        """An event that was injected is forgotten when its delivery faults; where that is an exit KVM remembers it."""
        if first.origin is Origin.CPU or second.origin is Origin.KVM:
            return super().second_event(first, second)
        self.adapted[PLAIN_SECOND] += 1
        return second.event
