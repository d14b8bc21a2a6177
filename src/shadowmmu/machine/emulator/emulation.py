# SPDX-License-Identifier: GPL-2.0-only
"""One instruction under emulation: its operands in registers and memory, and the table of handlers.

A handler locates every memory operand before it changes anything, so a fault leaves the state as it was; then it
stores, then it changes registers. RIP is already behind the instruction when it is called.
"""

from collections.abc import Callable

from iced_x86 import Instruction

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.memory.linear_memory import READ, USER, GuestMemory, Span
from shadowmmu.machine.seam import Cpu, State


class Emulation(Operands):
    """One instruction under emulation, on a state of its own."""

    __slots__ = ("cpu", "memory", "user")

    def __init__(self, instruction: Instruction, state: State, memory: GuestMemory, cpu: Cpu) -> None:
        super().__init__(instruction, state, memory.vcpu.efer)
        self.memory = memory
        self.cpu = cpu
        self.user = USER if state.cpl == 3 else READ

    def locate(self, index: int, access: int, size: int = 0, offset: int = 0) -> Span:
        return self.memory.locate(self.linear(index, offset), size or self.size(index), access | self.user)

    def locate_change(self, index: int, offset: int = 0) -> Span:
        """What is read, changed and written back."""
        return self.memory.locate_change(self.linear(index, offset), self.size(index), self.user)

    def load(self, index: int) -> int:
        """An operand to be read: register, immediate or memory."""
        return self.memory.load(self.locate(index, READ)) if self.is_memory(index) else self.value(index) & alu.mask(8 * self.size(index))

    def set_flags(self, flags: int) -> None:
        self.state.rflags = flags

    def update(self, index: int, operation: Callable[[int, int], tuple[int, int]]) -> None:
        """Read, change and write back an operand: `operation` maps (value, flags) to (result, flags)."""
        if self.is_memory(index):
            span = self.locate_change(index)
            result, flags = operation(self.memory.load(span), self.state.rflags)
            self.memory.store(span, result)
        else:
            result, flags = operation(self.value(index), self.state.rflags)
            self.set_register(index, result)
        self.set_flags(flags)


class NotEmulated(Exception):
    """A handler meets a form of its instruction that it does not do."""


Handler = Callable[[Emulation], None]
HANDLERS: dict[int, Handler] = {}
"""By iced-x86's mnemonic."""


def handles(*mnemonics: int) -> Callable[[Handler], Handler]:
    """Register the handler of instructions."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(mnemonics, handler))
        return handler

    return register
