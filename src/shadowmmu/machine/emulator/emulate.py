# SPDX-License-Identifier: GPL-2.0-only
"""Emulation of the instructions that may touch shadowed guest tables or memory that is not there."""

from iced_x86 import Instruction

from shadowmmu.machine.emulator import bit_ops, descriptor_ops, integer_ops, multiply_ops, stack_ops, string_ops, vector_ops
from shadowmmu.machine.emulator.decode import Fetcher, UnemulatedInstruction
from shadowmmu.machine.emulator.emulation import HANDLERS, Emulation, NotEmulated
from shadowmmu.machine.memory.linear_memory import GuestMemory
from shadowmmu.machine.seam import MASK32, MASK64, Cpu, State

FAMILIES = (integer_ops, multiply_ops, bit_ops, stack_ops, string_ops, vector_ops, descriptor_ops)
"""The modules whose import registers the handlers."""


class Emulator:
    """Emulates for one vCPU."""

    def __init__(self, memory: GuestMemory, fetcher: Fetcher, cpu: Cpu) -> None:
        self.memory = memory
        self.fetcher = fetcher
        self.cpu = cpu

    def step(self, state: State) -> State:
        """The state after the instruction at RIP, which is fetched first; else as `do`."""
        return self.do(state, self.fetcher.decode(state))

    def do(self, state: State, instruction: Instruction) -> State:
        """The state after this instruction, which is at RIP, or after some iterations of a repeated one.

        Raises GuestFault, with `state` as it was, or UnemulatedInstruction.
        """
        emulation = Emulation(instruction, state.copy(), self.memory, self.cpu)
        handler = HANDLERS.get(instruction.mnemonic)
        emulation.state.rip = instruction.next_ip & (MASK64 if emulation.mode == 64 else MASK32)
        try:
            if handler is None:
                raise NotEmulated
            handler(emulation)
        except NotEmulated:
            code = self.fetcher.fetch(state, emulation.mode)
            raise UnemulatedInstruction(state.rip, code[: instruction.len], str(instruction)) from None
        return emulation.state
