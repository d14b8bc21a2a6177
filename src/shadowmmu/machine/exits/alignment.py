# SPDX-License-Identifier: GPL-2.0-only
"""Alignment checks, which this CPU does not do: with CR0.AM, EFLAGS.AC and CPL 3 an operand that is not aligned raises #AC.

Code is translated anew for other flags than it has been translated for, so the CPU tells when it first meets some that runs so, and stops
before it (`vcpu.quick_delivery`). From there on the operands of each instruction are looked at first, until the flags are others;
then all code is dropped, so that it will tell again. Who does not ask for it pays nothing. Source: SDM vol. 3 section 6.15.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from iced_x86 import InstructionInfoFactory, MemorySizeExt, OpAccess

from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.exits.page_boundary import run_exactly
from shadowmmu.machine.memory.linear_memory import GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import Exit, ExitKind, State
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.vectors import AC

if TYPE_CHECKING:
    from shadowmmu.machine.vcpu.quick_exits import QuickExits

_AC, _AM = int(Rflags.AC), int(Cr0.AM)
_ALIGNMENTS = {2: 2, 4: 4, 6: 4, 8: 8, 10: 8}
"""Bytes of an operand -> what its address is a multiple of. Wider ones are not checked, but where they raise #GP."""
_MISALIGNED = Exit(ExitKind.EXCEPTION, AC)


def run_aligned(p: Processor, quick: "QuickExits") -> Exit:
    """Run one instruction, or the guest as ever, if it checks no more."""
    state = p.capture()
    if state.cpl != 3 or not state.rflags & _AC or not p.vcpu.cr0 & _AM:
        quick.forget_alignment()
        p.cpu.all_code_changed()
        return run_exactly(p.cpu, p.fetcher)
    if _is_misaligned(p, state):
        return _MISALIGNED
    quick.pause()
    p.cpu.stop_exactly()
    p.cpu.stop_at(p.cpu.executed + 1)
    return run_exactly(p.cpu, p.fetcher)


def _is_misaligned(p: Processor, state: State) -> bool:
    """The instruction at RIP has such an operand. One that cannot be fetched will fault."""
    with suppress(GuestFault, NestedFault, NoMemory):
        operands = Operands(instruction := p.fetcher.decode(state), state, p.vcpu.efer)
        used = InstructionInfoFactory().info(instruction).used_memory()
        accessed = [one for one in used if one.access != OpAccess.NO_MEM_ACCESS]
        return any(operands.used_address(one) % _ALIGNMENTS.get(MemorySizeExt.size(one.memory_size), 1) for one in accessed)
    return False
