# SPDX-License-Identifier: GPL-2.0-only
"""The count of the guest's instructions, and stops of the CPU where they are exact: on the thread that runs it, before a block.

The engine's own stop is right only when called in a hook: called by another thread it takes effect at any point of a
translated block, also where the program counter is not that of the next instruction, and what was done since is done
again. So a stop is a word in memory, and a hook before each block looks at it.

The same hook counts the instructions, which is what the machine's time is made of; it stops the CPU when a number of
them is reached, and where the guest sets EFLAGS.IF while an interrupt waits for that. A block is counted when it begins. Where the
guest leaves it before its end, at an exit, what it has not begun of it is taken off again.
"""

import cython
from cython.cimports.cpython.mem import PyMem_RawCalloc, PyMem_RawFree
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t, uintptr_t
from cython.cimports.shadowmmu.machine.cpu.block_code import AllKnown, begun_at
from cython.cimports.shadowmmu.machine.cpu.mode_flags import ModeFlag


def before_block(engine: cython.p_void, address: uint64_t, size: uint32_t, data: cython.p_void) -> cython.void:
    """The engine's hook. A stop that is made in it takes effect before the block."""
    block: BlockPtr = cython.cast(BlockPtr, data)
    request: RequestPtr = block.request
    executed: uint64_t = request.executed + block.weight
    if executed > request.near:
        look_around(engine, block)
        return
    request.executed = executed
    request.running = block


def want_stop(request: RequestPtr) -> cython.void:
    """Before the guest's next block."""
    request.wanted = 1
    request.near = 0


def mind(request: RequestPtr) -> cython.void:
    """There is something else to look around for. Another thread may ask for a stop meanwhile."""
    request.near = 0 if request.wanted or request.window else request.limit
    full_fence()
    if request.wanted:
        request.near = 0


def set_limit(request: RequestPtr, executed: uint64_t) -> cython.void:
    """Stop when so many instructions have been executed."""
    request.limit = min(executed, HEAVY - 1)
    mind(request)


def look_around(engine: cython.p_void, block: BlockPtr) -> cython.void:
    """Begin it, unless there is a reason not to."""
    request: RequestPtr = block.request
    if block.again and request.running != cython.NULL:
        take_off(request, block.pc, block.bits)
    if request.wanted or request.executed >= request.limit:
        stop(engine, request)
        return
    if request.window:
        look_for_window(engine, request)
        if request.opened:
            return
    request.executed += block.instructions
    request.running = block


def look_for_window(engine: cython.p_void, request: RequestPtr) -> cython.void:
    """Stop if the guest has interrupts on. What turns them on ends a block."""
    flags: uint64_t = 0
    if request.window == SKIP:
        request.window = LOOK
        return
    request.reg_read(engine, request.flags_register, cython.address(flags))
    if flags & INTERRUPTS_ON:
        request.opened = 1
        stop(engine, request)


def stop(engine: cython.p_void, request: RequestPtr) -> cython.void:
    """In a hook."""
    request.running = request.rest_of = cython.NULL
    request.emu_stop(engine)


def settle(request: RequestPtr) -> cython.void:
    """The guest has left its block, and its context has been read. The instruction that faults or exits has begun."""
    if request.running != cython.NULL:
        take_off(request, request.code_base[0] + request.rip[0], code_bits(request))
    request.running = request.rest_of = cython.NULL


def take_off(request: RequestPtr, linear: uint64_t, bits: cython.int) -> cython.void:
    """The instruction at `linear` is the last that has begun, if it is one of the block that runs."""
    block: BlockPtr = request.running
    offset: uint64_t = offset_in(block, linear)
    if offset < block.size:
        begun: uint64_t = begun_at(request.known, block.code, block.pc, offset, bits)
        request.executed -= block.instructions - min(begun, cython.cast(uint64_t, block.instructions))


def offset_in(block: BlockPtr, linear: uint64_t) -> uint64_t:
    """From where it begins; the sum of a segment's base and RIP may have wrapped."""
    offset: uint64_t = linear - block.pc
    return offset if offset < block.size else cython.cast(uint32_t, offset)


def code_bits(request: RequestPtr) -> cython.int:
    """16, 32 or 64, by the context."""
    mode: uint32_t = cython.cast(cython.pointer(uint32_t), request.mode)[0]
    if mode & ModeFlag.CODE_64:
        return 64
    return 32 if mode & ModeFlag.CODE_32 else 16


@cython.final
@cython.cclass
class StopRequest:
    """`emu_stop`, `reg_read`: addresses of the engine's functions. The object must outlive the engine's hook."""

    def __init__(self, emu_stop: uintptr_t, reg_read: uintptr_t, flags_register: cython.int) -> None:
        set_limit(cython.address(self.request), cython.cast(uint64_t, -1))
        self.request.emu_stop = cython.cast(emu_stop_t, emu_stop)
        self.request.reg_read = cython.cast(reg_read_t, reg_read)
        self.request.flags_register = flags_register
        self.request.known = cython.cast(cython.pointer(AllKnown), PyMem_RawCalloc(1, cython.sizeof(AllKnown)))
        if self.request.known == cython.NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.request.known)

    def attach(self, places: object) -> None:
        """Where things lie in the processor context (`seam.Places`)."""
        self.request.rip = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.rip))
        self.request.code_base = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.code_base))
        self.request.mode = cython.cast(cython.pointer(uint8_t), cython.cast(uintptr_t, places.mode))

    @property
    def hook(self):
        """Address of the hook before a block, a C function."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, before_block))

    @property
    def data(self):
        """Address of what compiled code is to be given."""
        return cython.cast(uintptr_t, cython.address(self.request))

    @property
    def count(self):
        """Address of the count of instructions."""
        return cython.cast(uintptr_t, cython.address(self.request.executed))

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

    def left(self) -> None:
        """The guest has left its block, and the context has been read."""
        settle(cython.address(self.request))

    def ask(self):
        """From any thread: stop before the guest's next block, now or when the CPU runs next."""
        want_stop(cython.address(self.request))

    def served(self):
        """The CPU has stopped."""
        self.request.wanted = self.request.opened = 0
        mind(cython.address(self.request))

    def stop_at(self, executed: uint64_t):
        """Stop when so many instructions have been executed."""
        set_limit(cython.address(self.request), executed)

    def watch_window(self, wanted: cython.bint):
        """Stop before a block at which the guest has interrupts on."""
        self.request.window = LOOK if wanted else NO
        self.request.opened = 0
        mind(cython.address(self.request))

    def skip_one(self):
        """The instruction that comes next is in an interrupt shadow: look again behind its block."""
        self.request.window, self.request.opened = SKIP, 0
