# SPDX-License-Identifier: GPL-2.0-only
"""The machine's CPU with what the captured CPU does otherwise: done here as it does it, and counted.

The captures come from QEMU 7.2's AMD-V; the machine runs on Unicorn 2.1.4, which is QEMU 5.0, with mends. Each class is told at
length in docs/rerun.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.x86.pferr import Pferr

_RSVD, _PRESENT = int(Pferr.RSVD), int(Pferr.PRESENT)
RESERVED_WITHOUT_P = "reserved bit without P"
NESTED_ACCESSED = "A of nested entries"
ACCESSED_PDPTE = "A in PDPTEs"
CLASSES = {
    RESERVED_WITHOUT_P: "QEMU leaves P out of the error code of a reserved-bit fault; hardware sets it, and so does this machine",
    NESTED_ACCESSED: "QEMU sets A in the last level of nested page tables, Unicorn does not: taken over from the dumps",
    ACCESSED_PDPTE: "QEMU sets A in PDPTEs, where it is reserved: under nested paging guests see it, and KVM refuses to load them",
}
"""Name of each class of differences, and its reason."""


class CapturedCpu(UnicornCpu):
    """One vCPU's processor; `adapted` counts what it did otherwise than the machine's, by class."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.adapted: Counter[str] = Counter()

    def run(self, until: int | None = None) -> Exit:
        exit_ = super().run(until)
        if exit_.kind in (ExitKind.PAGE_FAULT, ExitKind.NESTED_PAGE_FAULT):
            return exit_._replace(error_code=self.error_code(exit_.error_code))
        return exit_

    def error_code(self, code: int) -> int:
        """The error code that the captured CPU gives for a page fault."""
        if code & _RSVD and code & _PRESENT:
            self.adapted[RESERVED_WITHOUT_P] += 1
            return code & ~_PRESENT
        return code
