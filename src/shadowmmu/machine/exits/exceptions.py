# SPDX-License-Identifier: GPL-2.0-only
"""Exceptions of the guest's own, which go to its IDT; where this CPU raises another one than a processor, the processor's."""

from collections.abc import Callable
from contextlib import suppress

from iced_x86 import Instruction, InstructionInfoFactory, Mnemonic, Register

from shadowmmu.machine.emulator.decode import Operands, bitness
from shadowmmu.machine.exits.hypercall import mends_vmcall
from shadowmmu.machine.memory.linear_memory import Event, GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import Exit, State
from shadowmmu.machine.vcpu.pending import Origin
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Efer
from shadowmmu.x86.vectors import DB, GP, SS, UD

_SVM_INSTRUCTIONS = frozenset((Mnemonic.VMRUN, Mnemonic.VMLOAD, Mnemonic.VMSAVE, Mnemonic.STGI, Mnemonic.CLGI, Mnemonic.INVLPGA))
_BITS_64 = 64


def exception(p: Processor, exit_: Exit) -> None:
    state = p.capture()
    if exit_.number == UD and p.apic is not None and mends_vmcall(p, state):
        return
    correct = _CORRECTIONS.get((exit_.number, exit_.error_code))
    event = None
    if correct is not None:
        with suppress(GuestFault, NestedFault, NoMemory):
            event = correct(p, state, p.fetcher.decode(state))
    event = event or Event(exit_.number, exit_.error_code)
    if event.vector == DB and p.watched.met:
        state.system = state.system._replace(dr6=p.watched.tell(state.system.dr6))
        p.cpu.set_state(state)
    p.queue(event, Origin.CPU)


def _instead_of_gp(p: Processor, state: State, instruction: Instruction) -> Event | None:
    """The CPU has AMD-V always on, SKINIT too, and so looks at the privilege level first; and it does not tell the stack from other
    operands."""
    if instruction.mnemonic == Mnemonic.SKINIT or (not p.vcpu.efer & Efer.SVME and instruction.mnemonic in _SVM_INSTRUCTIONS):
        return Event(UD)
    if bitness(state, p.vcpu.efer) != _BITS_64:
        return None
    operands = Operands(instruction, state, p.vcpu.efer)
    stack = [used for used in InstructionInfoFactory().info(instruction).used_memory() if used.segment == Register.SS]
    return None if all(p.memory.canonical(operands.used_address(used)) for used in stack) else Event(SS)


def _instead_of_ud(_p: Processor, _state: State, instruction: Instruction) -> Event | None:
    """ICEBP is a trap."""
    return Event(DB, next_rip=instruction.next_ip) if instruction.mnemonic == Mnemonic.INT1 else None


_CORRECTIONS: dict[tuple[int, int], Callable[[Processor, State, Instruction], Event | None]] = {
    (GP, 0): _instead_of_gp,
    (UD, 0): _instead_of_ud,
}
"""By vector and error code."""
