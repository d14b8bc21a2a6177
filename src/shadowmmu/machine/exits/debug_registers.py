# SPDX-License-Identifier: GPL-2.0-only
"""Moves to and from the debug registers: to DR7, of which this CPU does only a part, and all while DR7.GD guards them.

Source: SDM vol. 3 section 17.2; APM vol. 2 section 13.1.1.
"""

from iced_x86 import Code

from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.memory.linear_memory import Event, GuestFault
from shadowmmu.machine.seam import Exit, State
from shadowmmu.machine.svm.world_switch import recalc_intercepts
from shadowmmu.machine.vcpu.pending import Origin
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Cr4
from shadowmmu.x86.debug import DR6_GENERAL_DETECT, DR7_FIXED, DR7_GENERAL_DETECT, DR7_WRITABLE
from shadowmmu.x86.vectors import DB, GP, UD
from shadowmmu.x86.vmcb import SvmExit

_MOVES = frozenset((Code.MOV_DR_R32, Code.MOV_DR_R64, Code.MOV_R32_DR, Code.MOV_R64_DR))
_ALIASES = (4, 5)
_DR7 = (SvmExit.DR_WRITE + 5, SvmExit.DR_WRITE + 7)


def debug_register(p: Processor, exit_: Exit) -> None:
    """With CR4.DE there are no DR4 and DR5; without it they are DR6 and DR7."""
    state = p.capture()
    if exit_.number & 7 in _ALIASES and p.vcpu.cr4 & Cr4.DE:
        raise GuestFault(UD)
    if state.system.dr7 & DR7_GENERAL_DETECT:
        _detect(p, state)
    elif exit_.number in _DR7:
        _write_dr7(p, state)
    else:  # a #DB has cleared GD
        _note(p, state)


def _detect(p: Processor, state: State) -> None:
    """A fault, which lets its handler at the registers."""
    system = state.system
    state.system = system._replace(dr6=system.dr6 | DR6_GENERAL_DETECT, dr7=system.dr7 & ~DR7_GENERAL_DETECT)
    p.cpu.set_state(state)
    _note(p, state)
    p.queue(Event(DB), Origin.CPU)


def _write_dr7(p: Processor, state: State) -> None:
    instruction = p.fetcher.decode(state, _MOVES)
    value = Operands(instruction, state, p.vcpu.efer).value(1)
    if value >> 32:
        raise GuestFault(GP)
    state.system = state.system._replace(dr7=value & DR7_WRITABLE | DR7_FIXED)
    _note(p, state)
    p.advance(state, instruction)


def _note(p: Processor, state: State) -> None:
    p.svm.see_debug_control(state.system.dr7)
    recalc_intercepts(p)
