# SPDX-License-Identifier: GPL-2.0-only
"""Places of code whose instruction has been decoded: what compiled code has to know to do it again.

Only what guests do most, in its plain forms. Whether memory still holds the instruction, whoever uses a place has to see.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy


def place_at(places: PlacesPtr, rip: uint64_t, mode: uint8_t) -> PlacePtr:
    """Where the place would be."""
    return cython.address(places.known[(rip ^ rip >> 12 ^ mode >> 5) & (CODE_PLACES - 1)])


def holds(place: PlacePtr, rip: uint64_t, mode: uint8_t) -> cython.bint:
    return place.rip == rip and place.mode == mode


def address_of(address: AddressPtr, gpr: cython.pointer(uint64_t), segment_base: uint64_t) -> uint64_t:
    """Before it is cut to the bits of a linear address."""
    effective: uint64_t = address.displacement
    if address.base >= 0:
        effective += gpr[address.base]
    if address.index >= 0:
        effective += gpr[address.index] * address.scale
    return segment_base + (effective & address.mask)


def operand_value(place: PlacePtr, gpr: cython.pointer(uint64_t)) -> uint64_t:
    """Of the operand that is no memory; its `size` lowest bytes count."""
    if place.register < 0:
        return place.value
    return gpr[place.register] >> 8 if place.high else gpr[place.register]


def set_register(place: PlacePtr, gpr: cython.pointer(uint64_t), value: uint64_t) -> cython.void:
    """Of four or eight bytes."""
    gpr[place.register] = value if place.size == 8 else cython.cast(uint32_t, value)


@cython.cfunc
def take_address(into: AddressPtr, given: object):
    """`plain.Address`."""
    into.base, into.index, into.scale, into.segment, into.displacement, into.mask, into.size = given


@cython.final
@cython.cclass
class CodePlaces:
    """Of one vCPU. One that would stand where another does takes its place."""

    def knows(self, mode: int, rip: uint64_t, code: bytes):
        """That the instruction `code` stands at `rip`."""
        place: PlacePtr = place_at(cython.address(self.places), rip, mode)
        if not holds(place, rip, mode) or place.length != len(code):
            return False
        return memcmp(place.code, PyBytes_AS_STRING(code), len(code)) == 0

    def learn(self, mode: int, rip: uint64_t, code: bytes, plain: object):
        """The instruction `code` at `rip` is this one (`plain.Plain`)."""
        i: cython.int
        place: PlacePtr = place_at(cython.address(self.places), rip, mode)
        place.mode, place.rip, place.length = mode, rip, len(code)
        memcpy(place.code, PyBytes_AS_STRING(code), len(code))
        place.doing, place.number, place.size = plain.doing, plain.number, plain.size
        place.register, place.high, place.value = plain.register, plain.high, plain.value
        take_address(cython.address(place.memory), plain.memory)
        place.touches = len(plain.touched) if len(plain.touched) <= TOUCHED else -1
        for i in range(place.touches):
            take_address(cython.address(place.touched[i]), plain.touched[i])
