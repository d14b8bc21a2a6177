# SPDX-License-Identifier: GPL-2.0-only
"""An access that the engine cannot let the CPU do: the instruction is done for the guest (KVM: x86_emulate_instruction)."""

from iced_x86 import Instruction

from shadowmmu.machine.emulator.decode import UnemulatedInstruction, writes_tables
from shadowmmu.machine.memory.linear_memory import GuestFault, NoMemory
from shadowmmu.machine.seam import State
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.vectors import UD


def emulate(p: Processor, address: int) -> None:
    """Do the instruction at RIP for its access to `address`, which is linear, or with nested paging physical for the guest that runs.

    Or have the CPU do it again: the engine decides where that helps.
    """
    p.witness.emulates(address)
    state = p.capture()
    p.vcpu.begin_emulation(state.rip, address, state.cpl == 3)
    p.emulated += 1
    try:
        instruction = _fetched(p, state)
        after = None if instruction is None else p.emulator.do(state, instruction)
    except UnemulatedInstruction as end:
        if not _let_off(p):
            _give_up(p, end)
        return
    except NoMemory as end:
        _give_up(p, UnemulatedInstruction(state.rip, b"", f"(code at guest physical {end}, where there is no memory)"))
    if after is not None:
        p.complete(after)


def _fetched(p: Processor, state: State) -> Instruction | None:
    """The instruction that is to be emulated; None: the CPU does it again."""
    try:
        instruction = p.emulator.fetcher.decode(state)
    except GuestFault:
        if _let_off(p):
            return None
        raise
    return None if p.vcpu.retry_instruction(writes_tables(instruction)) else instruction


def _let_off(p: Processor) -> bool:
    """What cannot be fetched or emulated."""
    again: bool = p.vcpu.retry_failed()
    p.unprotected += again
    return again


def _give_up(p: Processor, end: UnemulatedInstruction) -> None:
    """L2 cannot stop the machine: it gets #UD (KVM: handle_emulation_failure)."""
    if p.nested is not None:
        raise GuestFault(UD) from None
    raise end from None
