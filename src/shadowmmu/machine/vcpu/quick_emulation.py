# SPDX-License-Identifier: GPL-2.0-only
"""A MOV to or from memory that is emulated in the CPU's hook: `exits.emulated_access` of a store to guest tables, and of an access to a
device, within one page."""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, PAGE_SIZE, Hpa, HvaFlag, KvmVcpuPtr, MemSlotPtr, p_u8
from cython.cimports.shadowmmu.engine.fault.retry import begin_emulation, retry_instruction
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, host_mapping
from cython.cimports.shadowmmu.engine.pages.tracking import write_emulated
from cython.cimports.shadowmmu.machine.emulator.code_places import Doing, PlacePtr, address_of, operand_value, set_register
from cython.cimports.shadowmmu.machine.vcpu.code_pages import is_marked
from cython.cimports.shadowmmu.machine.vcpu.quick_devices import load_device, store_device
from cython.cimports.shadowmmu.machine.vcpu.quick_state import (
    CPL,
    came_to,
    complete,
    is_there,
    known_at_rip,
    look,
    segment_base,
    walk,
)
from cython.cimports.shadowmmu.x86.pferr import Pferr


def emulate(engine: cython.p_void, quick: QuickPtr, address: uint64_t, outcome: cython.int) -> cython.bint:
    """The instruction at RIP, whose access to `address` the MMU wants emulated, as it has said by `outcome`. What has been done of it
    before it is left to the loop may be done again: a MOV is one by which guests write tables, which the MMU does not let off."""
    vcpu: KvmVcpuPtr = quick.vcpu
    if not look(engine, quick):
        return False
    user: cython.bint = (quick.mode[0] & CPL) == 3
    begin_emulation(vcpu, quick.rip[0], address, user)
    place: PlacePtr = plain_move(quick)
    if place == cython.NULL:
        return False
    gva: uint64_t = address_of(cython.address(place.memory), quick.gpr, segment_base(quick, place.memory.segment)) & quick.wrap
    if (gva & (PAGE_SIZE - 1)) + place.size > PAGE_SIZE or retry_instruction(vcpu, True):
        return False
    kind: uint64_t = Pferr.WRITE if place.doing == Doing.STORE else 0
    gpa: uint64_t = walk(quick, gva, kind | (Pferr.USER if user else 0))
    if gpa == Hpa.INVALID_PAGE or not access(quick, place, gpa, outcome):
        return False
    complete(engine, quick, place)
    return True


def plain_move(quick: QuickPtr) -> PlacePtr:
    """The one at RIP; NULL: it is none."""
    place: PlacePtr = known_at_rip(quick)
    if place == cython.NULL or (place.doing != Doing.STORE and place.doing != Doing.LOAD) or not is_there(quick, place):
        return cython.NULL
    return place


def access(quick: QuickPtr, place: PlacePtr, gpa: uint64_t, outcome: cython.int) -> cython.bint:
    """Of a device once the exit has counted: it may look at the clock. A load from memory is left to the loop."""
    if is_memory(quick, gpa, quick.vcpu.smm):
        if place.doing != Doing.STORE or not store(quick, place, gpa):
            return False
        came_to(quick, outcome)
        return True
    came_to(quick, outcome)
    if place.doing == Doing.STORE:
        store_device(quick, gpa, operand_value(place, quick.gpr), place.size)
    else:
        set_register(place, quick.gpr, load_device(quick, gpa, place.size))
    return True


def store(quick: QuickPtr, place: PlacePtr, gpa: uint64_t) -> cython.bint:
    value: uint64_t = operand_value(place, quick.gpr)
    if not is_plain_memory(quick, gpa, quick.vcpu.smm):
        return False
    return write_emulated(quick.vcpu, gpa, cython.cast(p_u8, cython.address(value)), place.size)


def is_memory(quick: QuickPtr, gpa: uint64_t, as_id: cython.int) -> cython.bint:
    """Of this address space."""
    return gfn_to_memslot(quick.vcpu.kvm, as_id, gpa >> PAGE_SHIFT) != cython.NULL


def is_plain_memory(quick: QuickPtr, gpa: uint64_t, as_id: cython.int) -> cython.bint:
    """Memory of this address space that no CPU has translated code from. A walk that has faulted leads to none."""
    vcpu: KvmVcpuPtr = quick.vcpu
    slot: MemSlotPtr = cython.NULL if gpa == Hpa.INVALID_PAGE else gfn_to_memslot(vcpu.kvm, as_id, gpa >> PAGE_SHIFT)
    if slot == cython.NULL:
        return False
    entry: uint64_t = host_mapping(vcpu.kvm, slot, gpa >> PAGE_SHIFT)
    return entry & HvaFlag.HVA_PRESENT and not is_marked(quick.code, entry)
