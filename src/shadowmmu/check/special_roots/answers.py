# SPDX-License-Identifier: GPL-2.0-only
"""By which letter the answers of two VMs to one input may differ."""

from __future__ import annotations

from typing import TypeVar

from shadowmmu import Outcome
from shadowmmu.check.replayed.inputs import Answer, DirtyLog, Fault, Inject, Unprotect, UnprotectAddress
from shadowmmu.check.special_roots.align import Place
from shadowmmu.x86.pferr import Pferr

T = TypeVar("T")
DONE_AGAIN = {Outcome.FIXED, Outcome.SPURIOUS, Outcome.EMULATE}
"""The access goes on, by the CPU or by the emulator."""
RSVD = int(Pferr.RSVD)


def letter_of(given: object, theirs: Answer[T], ours: Answer[T], at: Place, shadowed: tuple[bool, bool]) -> str:
    """The letter; empty: they may not. `shadowed`: whether the kernel's VM and ours shadowed the page that was asked about."""
    if at.kernel_shuts_down:
        return "c"
    if isinstance(given, Unprotect | UnprotectAddress) and ours.value and at.kernel_keeps_root:
        return "b"
    if is_refused_at_once(given, theirs, ours, at):
        return "a"
    if isinstance(given, DirtyLog) and isinstance(theirs.value, bytes) and isinstance(ours.value, bytes):
        masks = (int.from_bytes(log, "little") for log in (theirs.value, ours.value))
        return "g" if at.may_log_alone(0, *masks) else ""
    if isinstance(given, Fault) and at.parted and {theirs.value, ours.value} <= DONE_AGAIN:
        return "g"
    return "g" if isinstance(given, Unprotect) and shadowed[0] != shadowed[1] else ""


def is_refused_at_once(given: object, theirs: Answer[T], ours: Answer[T], at: Place) -> bool:
    """The kernel emulates by a mark of MMIO; here no special page leads there yet, and the guest's tables refuse the access."""
    unlinked = isinstance(given, Fault) and bool(given.code & RSVD) and at.unlinked
    return unlinked and (theirs.value, ours.value) == (Outcome.EMULATE, Outcome.INJECT)


def gives_exception(given: object, theirs: Answer[T], ours: Answer[T]) -> bool:
    """Both VMs have one for the guest."""
    return isinstance(given, Inject) or (isinstance(given, Fault) and theirs.value == ours.value == Outcome.INJECT)
