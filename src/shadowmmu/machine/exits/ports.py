# SPDX-License-Identifier: GPL-2.0-only
"""Whether IN and OUT may reach a port: asked by the CPU while it runs, as port accesses are no exits of this machine."""

from shadowmmu.machine.memory.linear_memory import SYSTEM, GuestFault, NestedFault
from shadowmmu.machine.seam import ExitKind, State
from shadowmmu.machine.svm.reflect import wants_port
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Cr0, Rflags

_TSS_IO_MAP = 0x66
_TSS_32 = 8
"""Bit of a TSS's type: it has 32 bits, or 64, and so a permission map."""


def guard_port(p: Processor, state: State, port: int, size: int) -> ExitKind | None:
    """The exit that an access ends in, if any; exceptions come before L1's intercept."""
    p.take_cr3()
    p.look_from(state)
    if not _is_allowed(p, state, port, size):
        return ExitKind.PORT_DENIED
    return ExitKind.PORT if p.nested is not None and wants_port(p, p.nested, port, size) else None


def _is_allowed(p: Processor, state: State, port: int, size: int) -> bool:
    """Outside ring 0 by IOPL or by the TSS's permission map. SDM vol. 1 section 19.5."""
    if not p.vcpu.cr0 & Cr0.PE:
        return True
    if state.cpl <= state.rflags >> 12 & 3 and not state.rflags & Rflags.VM:
        return True
    try:
        return _is_in_map(p, state, port, size)
    except (GuestFault, NestedFault):
        return False


def _is_in_map(p: Processor, state: State, port: int, size: int) -> bool:
    """The TSS's permission map has a clear bit for each byte."""
    tr = state.system.tr
    if tr.limit < _TSS_IO_MAP + 1 or not tr.attr & _TSS_32:
        return False
    start = p.memory.read(tr.base + _TSS_IO_MAP, 2, SYSTEM) + port // 8
    if start + 1 > tr.limit:
        return False
    denied = p.memory.read(tr.base + start, 2, SYSTEM) >> port % 8
    return not denied & (1 << size) - 1
