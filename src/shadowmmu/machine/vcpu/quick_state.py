# SPDX-License-Identifier: GPL-2.0-only
"""What an exit that is served in the CPU's hook works on: the saved context, and the instruction at RIP.

The processor context is saved, changed where the back end has found things to be, and restored: the guest goes on with it.
A walk of the guest's tables is seen in the trace and sets A. If its exit is then left to the loop, it is kept for the handler, which
begins with the same walks.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SIZE, Hpa, KvmVcpuPtr
from cython.cimports.shadowmmu.engine.guest.walker import gva_to_gpa
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest
from cython.cimports.shadowmmu.machine.cpu.registers import CS, FS
from cython.cimports.shadowmmu.machine.emulator.code_places import LONGEST, PlacePtr, holds, place_at
from cython.cimports.shadowmmu.x86.control import Efer, Rflags
from cython.cimports.shadowmmu.x86.pferr import Pferr


def look(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """Read EFLAGS, and make the MMU's walks those of the guest now. False: there is more to do behind the instruction than to go on."""
    quick.flags = 0
    quick.reg_read(engine, quick.flags_register, cython.address(quick.flags))
    quick.vcpu.ac = (quick.flags & Rflags.AC) != 0
    return not quick.flags & Rflags.TF and not quick.mode[0] & INTERRUPT_SHADOW


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def segment_flags(quick: QuickPtr, segment: cython.int) -> uint32_t:
    return cython.cast(cython.pointer(uint32_t), quick.segments + SEGMENT_BYTES * segment + 20)[0]


def has_long_code(quick: QuickPtr) -> cython.bint:
    """CS.L is set, in whatever mode."""
    return (segment_flags(quick, CS) & FLAG_LONG) != 0


def bits_of_code(quick: QuickPtr) -> uint8_t:
    """16, 32 or 64."""
    if quick.vcpu.efer & Efer.LMA and has_long_code(quick):
        return 64
    return 32 if segment_flags(quick, CS) & FLAG_BIG else 16


def segment_base(quick: QuickPtr, segment: cython.int) -> uint64_t:
    """What is added to an effective address."""
    if segment < FS and bits_of_code(quick) == 64:
        return 0
    return cython.cast(cython.pointer(uint64_t), quick.segments + SEGMENT_BYTES * segment + 8)[0]


def is_of_rip(quick: QuickPtr) -> cython.bint:
    """The fault is in the page in which the instruction at RIP begins."""
    linear: uint64_t = segment_base(quick, CS) + quick.rip[0]
    return ((linear ^ quick.address[0]) & quick.wrap) < PAGE_SIZE


def walk(quick: QuickPtr, gva: uint64_t, access: uint64_t) -> uint64_t:
    """`Vcpu.gva_to_gpa`."""
    vcpu: KvmVcpuPtr = quick.vcpu
    gpa: uint64_t = gva_to_gpa(vcpu, vcpu.walk_mmu, gva, access, cython.address(vcpu.exception))
    if gpa == Hpa.INVALID_PAGE:
        vcpu.exception.pending = True
    done: cython.pointer(Walk) = cython.address(quick.walks[quick.walked])
    done.gva, done.access, done.gpa, done.exception = gva, access, gpa, vcpu.exception
    quick.walked += 1
    return gpa


def instruction_at_rip(quick: QuickPtr, doing: uint8_t) -> PlacePtr:
    """What has been decoded there before, if it does that, and if memory still holds it; else NULL."""
    place: PlacePtr = known_at_rip(quick)
    return cython.NULL if place == cython.NULL or place.doing != doing or not is_there(quick, place) else place


def known_at_rip(quick: QuickPtr) -> PlacePtr:
    """What has been decoded there before; NULL: nothing."""
    mode: uint8_t = bits_of_code(quick)
    place: PlacePtr = place_at(quick.places, quick.rip[0], mode)
    return place if holds(place, quick.rip[0], mode) else cython.NULL


def is_there(quick: QuickPtr, place: PlacePtr) -> cython.bint:
    """Memory still holds it. It is fetched as `Fetcher` does."""
    rip: uint64_t = quick.rip[0]
    linear: uint64_t = (segment_base(quick, CS) + rip) & quick.wrap
    room: uint64_t = PAGE_SIZE - (linear & (PAGE_SIZE - 1))
    user: uint64_t = Pferr.USER if (quick.mode[0] & CPL) == 3 else 0
    gpa: uint64_t = walk(quick, linear, Pferr.FETCH | user)
    code: uint8_t[LONGEST]
    if gpa == Hpa.INVALID_PAGE or place.length > room:
        return False
    if not read_guest(quick.vcpu.kvm, quick.vcpu.smm, gpa, code, min(room, cython.cast(uint64_t, LONGEST))):
        return False
    return memcmp(code, place.code, place.length) == 0


def next_rip(quick: QuickPtr, place: PlacePtr) -> uint64_t:
    """Behind the instruction at RIP."""
    rip: uint64_t = quick.rip[0] + place.length
    return rip if place.mode == 64 else cython.cast(uint32_t, rip)


def complete(engine: cython.p_void, quick: QuickPtr, place: PlacePtr) -> cython.void:
    """`Processor.advance`: the instruction is done."""
    quick.rip[0] = next_rip(quick, place)
    quick.restore(engine, quick.context)
    if quick.flags & Rflags.RF:
        quick.flags &= ~cython.cast(uint64_t, Rflags.RF)
        quick.reg_write(engine, quick.flags_register, cython.address(quick.flags))


def came_to(quick: QuickPtr, outcome: cython.int) -> cython.void:
    """An exit is served, and `Served` tells how."""
    quick.served += 1
    quick.outcomes[outcome] += 1
