# SPDX-License-Identifier: GPL-2.0-only
"""Stops of the CPU, done where they are exact: on the thread that runs it, before an instruction.

The engine's own stop is right only when called in a hook: called by another thread it takes effect at any point of a
translated block, also where the program counter is not that of the next instruction, and what was done since is done
again. So a stop is a word in memory, and a hook before each instruction looks at it.

The same hook counts the instructions, which is what the machine's time is made of; it stops the CPU when a number of
them is reached, and where the guest sets EFLAGS.IF while an interrupt waits for that.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t, uintptr_t


def before_instruction(engine: cython.p_void, address: uint64_t, size: uint32_t, data: cython.p_void) -> cython.void:
    """The engine's hook. A stop that is made in it takes effect before the instruction."""
    request: RequestPtr = cython.cast(RequestPtr, data)
    if request.stub:
        request.stub -= 1  # a stop here would find the host's registers
        return
    if request.wanted or request.executed >= request.limit:
        request.emu_stop(engine)
        return
    if request.window:
        look_for_window(engine, request)
        if request.opened:
            return
    request.executed += 1


def look_for_window(engine: cython.p_void, request: RequestPtr) -> cython.void:
    """Stop if the guest has interrupts on."""
    flags: uint64_t = 0
    if request.window == SKIP:
        request.window = LOOK
        return
    request.reg_read(engine, request.flags_register, cython.address(flags))
    if flags & INTERRUPTS_ON:
        request.opened = 1
        request.emu_stop(engine)


@cython.final
@cython.cclass
class StopRequest:
    """`emu_stop`, `reg_read`: addresses of the engine's functions. The object must outlive the engine's hook."""

    def __init__(self, emu_stop: uintptr_t, reg_read: uintptr_t, flags_register: cython.int) -> None:
        self.request.wanted = self.request.stub = self.request.window = self.request.opened = 0
        self.request.executed = 0
        self.request.limit = cython.cast(uint64_t, -1)
        self.request.emu_stop = cython.cast(emu_stop_t, emu_stop)
        self.request.reg_read = cython.cast(reg_read_t, reg_read)
        self.request.flags_register = flags_register

    @property
    def hook(self):
        """Address of the hook, a C function."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, before_instruction))

    @property
    def data(self):
        """Address of what the hook is to be given."""
        return cython.cast(uintptr_t, cython.address(self.request))

    @property
    def places(self):
        """Addresses of the count of instructions, of its limit, of what is still to be done in host mode, and of what `ask` sets."""
        request: RequestPtr = cython.address(self.request)
        counts = cython.cast(uintptr_t, cython.address(request.executed)), cython.cast(uintptr_t, cython.address(request.limit))
        wanted = cython.cast(uintptr_t, cython.address(request.wanted))
        return *counts, cython.cast(uintptr_t, cython.address(request.stub)), wanted

    @property
    def wanted(self):
        """A stop was asked for, and none has been since."""
        return self.request.wanted != 0

    @property
    def executed(self):
        """Instructions the guest has begun so far; one that faulted and was begun again counts anew."""
        return self.request.executed

    @property
    def opened(self):
        """The CPU has stopped where interrupts are on."""
        return self.request.opened != 0

    def ask(self):
        """From any thread: stop before the next instruction of the guest, now or when the CPU runs next."""
        self.request.wanted = 1

    def served(self):
        """The CPU has stopped."""
        self.request.wanted = self.request.opened = 0

    def enter_by_stub(self, instructions: cython.int):
        """The CPU is about to begin in host mode, with so many instructions until it is in the guest."""
        self.request.stub = instructions

    def stop_at(self, executed: uint64_t):
        """Stop when so many instructions have been executed."""
        self.request.limit = executed

    def watch_window(self, wanted: cython.bint):
        """Stop before an instruction at which the guest has interrupts on."""
        self.request.window = LOOK if wanted else NO
        self.request.opened = 0

    def skip_one(self):
        """The instruction that comes next is in an interrupt shadow: look again behind it."""
        self.request.window, self.request.opened = SKIP, 0
