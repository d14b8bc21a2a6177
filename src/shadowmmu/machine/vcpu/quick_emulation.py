# SPDX-License-Identifier: GPL-2.0-only
"""Stores to guest tables that are emulated in the CPU's hook: `exits.emulated_access` of a MOV to memory, within one page."""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, PAGE_SIZE, Hpa, HvaFlag, KvmVcpuPtr, MemSlotPtr, p_u8
from cython.cimports.shadowmmu.engine.fault.retry import begin_emulation, retry_instruction
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, host_mapping
from cython.cimports.shadowmmu.engine.pages.tracking import write_emulated
from cython.cimports.shadowmmu.machine.emulator.code_places import Doing, PlacePtr, address_of, operand_value
from cython.cimports.shadowmmu.machine.vcpu.code_pages import is_marked
from cython.cimports.shadowmmu.machine.vcpu.quick_state import CPL, complete, instruction_at_rip, look, segment_base, walk
from cython.cimports.shadowmmu.x86.pferr import Pferr


def emulate_store(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """The instruction at RIP, whose fault the MMU wants emulated. What has been done of it before it is left to the loop may be done
    again: a MOV is one by which guests write tables, which the MMU does not let off."""
    vcpu: KvmVcpuPtr = quick.vcpu
    if not look(engine, quick):
        return False
    user: cython.bint = (quick.mode[0] & CPL) == 3
    begin_emulation(vcpu, quick.rip[0], quick.address[0] & quick.wrap, user)
    place: PlacePtr = instruction_at_rip(quick, Doing.STORE)
    if place == cython.NULL:
        return False
    gva: uint64_t = address_of(cython.address(place.memory), quick.gpr, segment_base(quick, place.memory.segment)) & quick.wrap
    if (gva & (PAGE_SIZE - 1)) + place.size > PAGE_SIZE or retry_instruction(vcpu, True):
        return False
    gpa: uint64_t = walk(quick, gva, Pferr.WRITE | (Pferr.USER if user else 0))
    value: uint64_t = operand_value(place, quick.gpr)
    if not is_plain_memory(quick, gpa, vcpu.smm) or not write_emulated(vcpu, gpa, cython.cast(p_u8, cython.address(value)), place.size):
        return False
    complete(engine, quick, place)
    return True


def is_plain_memory(quick: QuickPtr, gpa: uint64_t, as_id: cython.int) -> cython.bint:
    """Memory of this address space that no CPU has translated code from. A walk that has faulted leads to none."""
    vcpu: KvmVcpuPtr = quick.vcpu
    slot: MemSlotPtr = cython.NULL if gpa == Hpa.INVALID_PAGE else gfn_to_memslot(vcpu.kvm, as_id, gpa >> PAGE_SHIFT)
    if slot == cython.NULL:
        return False
    entry: uint64_t = host_mapping(vcpu.kvm, slot, gpa >> PAGE_SHIFT)
    return entry & HvaFlag.HVA_PRESENT and not is_marked(quick.code, entry)
