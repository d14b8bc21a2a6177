# SPDX-License-Identifier: GPL-2.0-only
"""The state of one delivery, how it fails, and memory as it reaches it: each access is located first, and stores are done at the end."""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.shadowmmu.x86.pferr import Pferr

# --- failures


def external(d: DeliveryPtr) -> uint32_t:
    """EXT of error codes."""
    return 0 if d.event.software else 1


def raises(d: DeliveryPtr, vector: uint8_t, code: uint32_t) -> cython.bint:
    d.failure, d.vector, d.code = Failure.RAISES, vector, code
    return False


def raises_for(d: DeliveryPtr, vector: uint8_t, selector: uint32_t) -> cython.bint:
    return raises(d, vector, (selector & 0xFFFC) | external(d))


def raises_for_gate(d: DeliveryPtr, vector: uint8_t) -> cython.bint:
    return raises(d, vector, cython.cast(uint32_t, d.event.vector) << 3 | 2 | external(d))


# --- memory


def translate(d: DeliveryPtr, gva: uint64_t, access: uint64_t, place: cython.pointer(uint64_t)) -> cython.bint:
    if d.memory.translate(d.memory.owner, gva, access, place):
        return True
    d.failure = Failure.MEMORY
    return False


def locate(d: DeliveryPtr, gva: uint64_t, size: uint64_t, access: uint64_t, span: SpanPtr) -> cython.bint:
    """Translate an access of `size` bytes, page by page."""
    gva &= d.memory.mask
    room: uint64_t = 0x1000 - (gva & 0xFFF)
    span.parts = 1 if size <= room else 2
    span.size[0] = min(size, room)
    span.size[1] = size - span.size[0]
    if not translate(d, gva, access, cython.address(span.place[0])):
        return False
    return span.parts == 1 or translate(d, (gva + room) & d.memory.mask, access, cython.address(span.place[1]))


def read(d: DeliveryPtr, gva: uint64_t, size: uint64_t, into: cython.p_void) -> cython.bint:
    """A read of the CPU's own, of a descriptor table or a TSS."""
    span: Span
    part: cython.int
    at: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), into)
    if not locate(d, gva, size, Pferr.IMPLICIT, cython.address(span)):
        return False
    for part in range(span.parts):
        if not d.memory.load(d.memory.owner, span.place[part], span.size[part], at):
            d.failure = Failure.MEMORY
            return False
        at += span.size[part]
    return True


def store_later(d: DeliveryPtr, gva: uint64_t, size: uint64_t, access: uint64_t, value: uint64_t) -> cython.bint:
    """Locate a store, which is done at the end."""
    if not locate(d, gva, size, access | Pferr.WRITE, cython.address(d.store[d.stores].span)):
        return False
    d.store[d.stores].value = value
    d.stores += 1
    return True


def do_stores(d: DeliveryPtr) -> cython.bint:
    i: cython.int
    part: cython.int
    for i in range(d.stores):
        at: uint64_t = 0
        span: SpanPtr = cython.address(d.store[i].span)
        bytes_stored: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), cython.address(d.store[i].value))
        for part in range(span.parts):
            if not d.memory.store(d.memory.owner, span.place[part], span.size[part], bytes_stored + at):
                d.failure = Failure.MEMORY
                return False
            at += span.size[part]
    return True
