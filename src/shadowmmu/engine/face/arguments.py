# SPDX-License-Identifier: GPL-2.0-only
"""Arguments of the face, checked by name before the engine sees one.

One style for all: what is no number raises TypeError; a word (an address, a register, a value) that 64 bits cannot hold
raises OverflowError; what has a range of its own (a level, a slot, a count) and lies outside raises ValueError.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SIZE, u64


@cython.cfunc
@cython.exceptval(0xFFFFFFFFFFFFFFFF, check=True)
def word(name: str, value: object) -> u64:
    """`value` as 64 bits."""
    try:
        return value
    except OverflowError:
        raise OverflowError(f"{name} is {shown(value)}; it must not be negative, nor have more than 64 bits") from None


def check_range(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    if not low <= value <= high:
        raise ValueError(f"{name} is {shown(value)}; it must lie between {low} and {high}")


def check_within_page(name: str, address: int, size: int, most: int) -> None:
    """An access of 1 to `most` bytes that ends in the page in which it begins."""
    at: u64 = word(name, address)
    if not 1 <= size <= most or (at & (PAGE_SIZE - 1)) + size > PAGE_SIZE:
        raise ValueError(f"{shown(size)} bytes at {at:#x}: such an access has 1 to {most} bytes in one page; split it")


def shown(value: int) -> str:
    """The number, or how long it is: a message has an end."""
    if -(1 << 64) < value < 1 << 65:
        return str(value)
    return f"{'a negative' if value < 0 else 'an'} integer of {value.bit_length()} bits"
