# SPDX-License-Identifier: GPL-2.0-only
"""The registers that the VMM gives a captured guest, at its start or later (KVM_SET_SREGS, KVM_SET_REGS)."""

from __future__ import annotations

from collections.abc import Mapping

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.markers import parse
from shadowmmu.machine.seam import MASK32, Reg, Seg, Segment, State, System, Table
from shadowmmu.trace.events import Marker
from shadowmmu.x86.control import Rflags

REAL, PROTECTED, LONG = 16, 32, 64
"""Modes of an entry state: the width of its code."""
CODE_SELECTOR, STACK_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x08, 0x10, 0x23, 0x28
_CODE_32, _CODE_64, _STACK, _DATA = 0xC9B, 0xA9B, 0xC93, 0xCF3
_REAL_CODE, _REAL_DATA, _REAL_LIMIT = 0x9B, 0x93, 0xFFFF
_TSS_32, _TSS_64, _TSS_LIMIT = 0x89, 0x8B, 0x67
_GDT_LIMIT, _IDT_LIMIT, _REAL_IDT_LIMIT = 0x3F, 0xFFF, 0x3FF
_LDT = Segment(0, 0x82, 0xFFFF, 0)
_RESET_TSS = Segment(0, 0x8B, 0xFFFF, 0)
_RESET_TABLE = Table(0, 0xFFFF)
_DR6, _DR7 = 0xFFFF0FF0, 0x400


def entry_states(capture: Capture) -> list[Mapping[str, int]]:
    """What each vCPU begins with, as far as it is told: the guest's description has the first one's, the VMM's marks those of others."""
    marks = [parse(event) for event in capture.events[: _first_run(capture)] if isinstance(event, Marker)]
    told = [mark.fields for mark in marks if mark.action == "set_sregs"]
    first = capture.guest.entry_state
    return [first, *(first | fields for fields in told[1 : capture.vcpus] if "rip" in fields)]


def _first_run(capture: Capture) -> int:
    return next((at for at, event in enumerate(capture.events) if isinstance(event, Marker) and event.text == "H run"), 0)


def starting_state(wanted: Mapping[str, int]) -> State:
    """General registers zero but for the stack; flat segments, or those of real mode."""
    gpr = [0] * 16
    gpr[Reg.RSP] = wanted["rsp"]
    return State(gpr, wanted["rip"], int(Rflags.FIXED), _real() if wanted["mode"] == REAL else _protected(wanted))


def _system(segments: dict[Seg, Segment], tr: Segment, gdtr: Table, idtr: Table) -> System:
    ordered = tuple(segments[index] for index in Seg)
    return System(ordered, ldtr=_LDT, tr=tr, gdtr=gdtr, idtr=idtr, cpl=0, dr6=_DR6, dr7=_DR7, kernel_gs_base=0)


def _real() -> System:
    data = Segment(0, _REAL_DATA, _REAL_LIMIT, 0)
    segments = dict.fromkeys(Seg, data) | {Seg.CS: Segment(0, _REAL_CODE, _REAL_LIMIT, 0)}
    return _system(segments, _RESET_TSS, _RESET_TABLE, Table(0, _REAL_IDT_LIMIT))


def _protected(wanted: Mapping[str, int]) -> System:
    long = wanted["mode"] == LONG
    segments = dict.fromkeys(Seg, Segment(DATA_SELECTOR, _DATA, MASK32, 0))
    segments[Seg.CS] = Segment(CODE_SELECTOR, _CODE_64 if long else _CODE_32, MASK32, 0)
    segments[Seg.SS] = Segment(STACK_SELECTOR, _STACK, MASK32, 0)
    tr = Segment(TSS_SELECTOR, _TSS_64 if long else _TSS_32, _TSS_LIMIT, wanted["tss"])
    return _system(segments, tr, Table(wanted["gdt"], _GDT_LIMIT), Table(wanted["idt"], _IDT_LIMIT))
