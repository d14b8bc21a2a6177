# SPDX-License-Identifier: GPL-2.0-only
"""What an access should come to: by a walk of the guest's tables as they are, if no CPU may give another answer."""

from __future__ import annotations

from typing import NamedTuple

from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.hardware.walk import EFER_NXE, FETCH, Translation, walk
from shadowmmu.runs.exported.steps import NONE

_PF = 14 << 32


class Expected(NamedTuple):
    """`want`: the exception, as a step has it; None: more than one answer is right. `page`: where the access leads, if it is let."""

    want: int | None
    gpa: int | None = None
    value: int | None = None
    """What is read there, if it is known."""


def expected(guest: Guest, vcpu: int, gva: int, access: int, ac: bool, size: int) -> Expected:
    """Of a vCPU of the list's at present."""
    tlb = guest.oracle.vcpus[vcpu]
    now = walk(tlb.mode, guest.slots.peek, tlb.cr3, gva, access, ac, pdptes=tlb.pdptes if tlb.mode.levels == 3 else None)
    held = {page for page in tlb.possible(gva) if tlb.mode.permits(page.rights, access, ac)} if tlb.mode.levels else set()
    if not isinstance(now, Translation):
        by_linux = tlb.mode.levels == 2 and tlb.efer & EFER_NXE and access & FETCH  # I/D without CR4.PAE, which Linux sets
        return Expected(None if held or by_linux else _PF | now)
    gpa = now.address(gva)
    others = {page.address(gva) for page in tlb.possible(gva)} - {gpa} if tlb.mode.levels else set()
    refused = any(not tlb.mode.permits(page.rights, access, ac) for page in tlb.possible(gva)) if tlb.mode.levels else False
    if others or refused:
        return Expected(None, gpa)
    return Expected(NONE, gpa, _value(guest, gpa, size))


def _value(guest: Guest, gpa: int, size: int) -> int | None:
    parts = [guest.slots.peek(gpa + at, 1) for at in range(size)]
    return None if None in parts else sum((part or 0) << 8 * at for at, part in enumerate(parts))
