# SPDX-License-Identifier: GPL-2.0-only
"""What every protected-mode guest has in memory: segments, one TSS, and an IDT whose handlers tell the host and go on.

Every access that may fault is preceded by `mov esi, <the address behind it>`: the handlers of #PF and #GP resume there.
"""

from __future__ import annotations

from kit.assemble import Assembler
from kit.layout import GDT, HANDLERS, IDT, KERNEL_STACK, TSS
from kit.memory import Memory
from kit.ports import Port

CODE_32, CODE_64, DATA, DPL_3 = 0x00CF_9B00_0000_FFFF, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 3 << 45
"""Flat descriptors (APM vol. 2, 4.7)."""
KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA, TASK = 0x08, 0x10, 0x1B, 0x23, 0x28
"""Selectors; the user's with their privilege level."""
TSS_LIMIT, BUSY_TSS = 0x67, 0x8B
INTERRUPT_GATE, USER_GATE = 0x8E, 0xEE
GP, PF, EXCEPTIONS = 13, 14, 32
LEAVE_USER = 0x81
"""INT of the user: the kernel goes on behind it."""
BAD = 0xBAD00
"""Told to the host with the number of an exception that no guest should take."""


def install(memory: Memory, bits: int) -> None:
    """Segments, TSS, handlers and IDT for 32- or 64-bit code."""
    _segments(memory, bits)
    code = Assembler(memory, bits, HANDLERS)
    page_fault = _page_fault(code)
    protection = _protection(code)
    leave_user = _leave_user(code)
    bad = [_bad(code, vector) for vector in range(EXCEPTIONS)]
    handlers = {PF: page_fault, GP: protection, LEAVE_USER: leave_user}
    for vector in range(LEAVE_USER + 1):
        gate = USER_GATE if vector == LEAVE_USER else INTERRUPT_GATE
        _gate(memory, bits, vector, handlers.get(vector, bad[min(vector, EXCEPTIONS - 1)]), gate)


def _segments(memory: Memory, bits: int) -> None:
    code = CODE_64 if bits == 64 else CODE_32
    task = TSS_LIMIT | TSS << 16 | BUSY_TSS << 40
    for selector, descriptor in ((8, code), (0x10, DATA), (0x18, code | DPL_3), (0x20, DATA | DPL_3), (0x28, task)):
        memory.write_word(GDT + selector, descriptor, 8)
    if bits == 64:
        memory.write_word(TSS + 4, KERNEL_STACK, 8)
    else:
        memory.write_word(TSS + 4, KERNEL_STACK, 4)
        memory.write_word(TSS + 8, KERNEL_DATA, 4)
    memory.write_word(TSS + 0x66, TSS_LIMIT + 1, 2)  # no I/O map


def _gate(memory: Memory, bits: int, vector: int, handler: int, kind: int) -> None:
    """A gate of 8 bytes, or 16 in long mode (APM vol. 2, 4.8)."""
    low = handler & 0xFFFF | KERNEL_CODE << 16 | kind << 40 | (handler >> 16 & 0xFFFF) << 48
    if bits == 64:
        memory.write_word(IDT + vector * 16, low | handler >> 32 << 64, 16)
    else:
        memory.write_word(IDT + vector * 8, low, 8)


def _page_fault(code: Assembler) -> int:
    """Tell CR2 and the error code; resume at esi."""
    at = code.push("ax")
    code.read_control(2)
    code.out(Port.CR2)
    if code.bits == 64:
        code.shift_right("ax", 32)
        code.out(Port.CR2_HIGH)
    _tell_error_and_resume(code, Port.ERROR)
    return at


def _protection(code: Assembler) -> int:
    at = code.push("ax")
    _tell_error_and_resume(code, Port.GP)
    return at


def _tell_error_and_resume(code: Assembler, port: Port) -> None:
    """On the stack: the saved ax, the error code, the address to return to."""
    code.load_stack("ax", code.word)
    code.out(port)
    code.store_stack(2 * code.word, "si")
    code.pop("ax")
    code.drop(1)
    code.interrupt_return()


def _leave_user(code: Assembler) -> int:
    """Go on behind the INT, on the kernel's stack, as if nobody had called."""
    at = code.pop("bx")
    code.drop(4)
    code.jump("bx")
    return at


def _bad(code: Assembler, vector: int) -> int:
    at = code.mov("ax", BAD + vector)
    code.out(Port.BAD)
    code.hlt()
    return at
