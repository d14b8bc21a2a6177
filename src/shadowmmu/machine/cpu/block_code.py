# SPDX-License-Identifier: GPL-2.0-only
"""How many instructions there are in code that has run: decoded once by iced-x86, and then known by its bytes."""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy

from shadowmmu.machine.cpu.block_decode import instructions_in

PAGE = cython.declare(uint64_t, 4096)
FNV_BASIS = cython.declare(uint64_t, 0xCBF29CE484222325)
FNV_PRIME = cython.declare(uint64_t, 0x100000001B3)


def copy_code(parts: cython.pointer(cython.pointer(uint8_t)), pc: uint64_t, size: uint64_t, into: cython.pointer(uint8_t)) -> uint32_t:
    """Code of a block at `pc`, of which `parts` tells where it lies in each page; how many bytes."""
    room: uint64_t = PAGE - (pc & (PAGE - 1))
    first: uint64_t = min(size, room)
    if parts[0] == cython.NULL or size > LONGEST_BLOCK:
        return 0
    memcpy(into, parts[0], first)
    if size > first:
        if parts[1] == cython.NULL:
            return cython.cast(uint32_t, first)
        memcpy(into + first, parts[1], size - first)
    return cython.cast(uint32_t, size)


def begun_at(
    all: AllKnownPtr, parts: cython.pointer(cython.pointer(uint8_t)), pc: uint64_t, offset: uint64_t, bits: cython.int
) -> cython.int:
    """Instructions of a block up to the one at `offset`, this one included."""
    code: uint8_t[LONGEST_BLOCK]
    return number_of(all, code, copy_code(parts, pc, offset, code), bits) + 1


def number_of(all: AllKnownPtr, code: cython.pointer(uint8_t), length: cython.int, bits: cython.int) -> cython.int:
    """Instructions in whole ones."""
    i: cython.int
    mix: uint64_t = FNV_BASIS ^ cython.cast(uint64_t, bits)
    if not length:
        return 0
    if length > LONGEST_KEPT:
        return counted(code, length, bits)
    for i in range(length):
        mix = (mix ^ code[i]) * FNV_PRIME
    known: KnownPtr = cython.address(all.known[(mix ^ mix >> 32) & (KEPT - 1)])
    if known.bits != bits or known.length != length or memcmp(known.code, code, length):
        known.bits, known.length, known.number = bits, length, counted(code, length, bits)
        memcpy(known.code, code, length)
    return known.number


def counted(code: cython.pointer(uint8_t), length: cython.int, bits: cython.int) -> cython.int:
    return instructions_in(code[:length], bits)
