# SPDX-License-Identifier: GPL-2.0-only
"""A stop of the CPU, asked for from anywhere and done where it is exact: on the thread that runs it, before an instruction.

The engine's own stop is right only when called in a hook: called by another thread it takes effect at any point of a
translated block, also where the program counter is not that of the next instruction, and what was done since is done
again. So a stop is a word in memory, and a hook before each instruction looks at it.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t, uintptr_t


def before_instruction(engine: cython.p_void, address: uint64_t, size: uint32_t, data: cython.p_void) -> cython.void:
    """The engine's hook. A stop that is made in it takes effect before the instruction."""
    request: RequestPtr = cython.cast(RequestPtr, data)
    if request.stub:
        request.stub -= 1  # a stop here would find the host's registers
    elif request.wanted:
        request.emu_stop(engine)


@cython.final
@cython.cclass
class StopRequest:
    """`emu_stop`: address of the engine's function that stops it. The object must outlive the engine's hook."""

    def __init__(self, emu_stop: uintptr_t) -> None:
        self.request.wanted = self.request.stub = 0
        self.request.emu_stop = cython.cast(emu_stop_t, emu_stop)

    @property
    def hook(self):
        """Address of the hook, a C function."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, before_instruction))

    @property
    def data(self):
        """Address of what the hook is to be given."""
        return cython.cast(uintptr_t, cython.address(self.request))

    @property
    def wanted(self):
        """A stop was asked for, and none has been since."""
        return self.request.wanted != 0

    def ask(self):
        """From any thread: stop before the next instruction of the guest, now or when the CPU runs next."""
        self.request.wanted = 1

    def served(self):
        """The CPU has stopped."""
        self.request.wanted = 0

    def enter_by_stub(self, instructions: cython.int):
        """The CPU is about to begin in host mode, with so many instructions until it is in the guest."""
        self.request.stub = instructions
