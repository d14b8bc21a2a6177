# SPDX-License-Identifier: GPL-2.0-only
"""Breakpoints on data, which this CPU does not heed: while DR7 has one, the operands of each instruction are looked at before it is run
alone. Who does not ask for it pays nothing. Source: SDM vol. 3 sections 17.2.4, 17.2.5 and 17.3.1.

What is met is a trap behind the instruction. Behind a load of SS it waits for the next instruction, and comes at the first one of a
handler if that one has led there. Tables that the CPU reads by itself are not looked at, nor are ports.
"""

from contextlib import suppress
from typing import NamedTuple

from iced_x86 import InstructionInfoFactory, MemorySizeExt, OpAccess

from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.exits.page_boundary import run_exactly
from shadowmmu.machine.memory.linear_memory import GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import Exit, ExitKind, State
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.vectors import DB

_ALL_ACCESSES = 3  # R/W, of DR7; what has bit 0 is on data
_SIZES = (1, 2, 8, 4)  # by LEN
_WRITES = frozenset((OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE))
_TRAP = Exit(ExitKind.EXCEPTION, DB)


class Watchpoint(NamedTuple):
    """One that is on. `bit`: of DR6."""

    bit: int
    first: int
    size: int
    reads: bool


def run_watched(p: Processor) -> Exit:
    """Run one instruction, or the guest as ever, if its DR7 has none any more."""
    state = p.capture()
    points = _watchpoints(p, state.system.dr7)
    if not points:
        p.svm.see_debug_control(state.system.dr7)
        return run_exactly(p.cpu, p.fetcher)
    if p.watched.met and not state.interrupt_shadow:
        return _TRAP
    p.watched.touches(_touched(p, state, points))
    before = p.cpu.executed
    if p.quick is not None:
        p.quick.pause()
    p.cpu.stop_exactly()
    p.cpu.stop_at(before + 1)
    exit_ = run_exactly(p.cpu, p.fetcher)
    if not _is_done(exit_) or p.cpu.executed == before:
        return exit_
    p.watched.done()
    waits = exit_.kind is ExitKind.EXCEPTION or p.cpu.state().interrupt_shadow
    return _TRAP if p.watched.met and not waits else exit_


def _is_done(exit_: Exit) -> bool:
    """The instruction has come to its end; a single step's trap is behind it, too."""
    return exit_.kind is ExitKind.INTERRUPTED or (exit_.kind is ExitKind.EXCEPTION and exit_.number == DB)


def _watchpoints(p: Processor, dr7: int) -> list[Watchpoint]:
    found = []
    for number in range(4):
        kind, size = dr7 >> 16 + 4 * number & 3, _SIZES[dr7 >> 18 + 4 * number & 3]
        if dr7 >> 2 * number & 3 and kind & 1:
            found.append(Watchpoint(1 << number, p.cpu.breakpoint_at(number) & -size, size, kind == _ALL_ACCESSES))
    return found


def _touched(p: Processor, state: State, points: list[Watchpoint]) -> int:
    """Bits of those that the instruction at RIP meets. One that cannot be fetched will fault."""
    bits = 0
    with suppress(GuestFault, NestedFault, NoMemory):
        operands = Operands(instruction := p.fetcher.decode(state), state, p.vcpu.efer)
        for used in InstructionInfoFactory().info(instruction).used_memory():
            first, size = operands.used_address(used), MemorySizeExt.size(used.memory_size)
            for point in points:
                asked = used.access in _WRITES or (point.reads and used.access != OpAccess.NO_MEM_ACCESS)
                if asked and first < point.first + point.size and point.first < first + size:
                    bits |= point.bit
    return bits
