# SPDX-License-Identifier: GPL-2.0-only
"""Events that are delivered in the CPU's hook: `loop.injection`, where nothing is in the way.

Memory is reached as by `CpuMemory`, through the same translations. What would fault on the way, go through the engine or meet
translated code is left to the loop, before anything has changed.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy, memset
from cython.cimports.shadowmmu.engine.arena.state import Hpa, KvmVcpuPtr, p_u8
from cython.cimports.shadowmmu.engine.face.host_access import frame_memory, is_guest_frame
from cython.cimports.shadowmmu.machine.cpu.mode_flags import mode_flags
from cython.cimports.shadowmmu.machine.cpu.registers import CS, RegisterPtr
from cython.cimports.shadowmmu.machine.cpu.stop_request import want_stop
from cython.cimports.shadowmmu.machine.memory.nested_tables import NestedTables
from cython.cimports.shadowmmu.machine.memory.shadow_tables import FOUND, ShadowTables
from cython.cimports.shadowmmu.machine.memory.translations import TranslationPtr, begin_delivery, is_kept, keep_place, place_for
from cython.cimports.shadowmmu.machine.vcpu.code_pages import is_marked, mark
from cython.cimports.shadowmmu.machine.vcpu.delivery import deliver_event
from cython.cimports.shadowmmu.machine.vcpu.delivery_state import DeliveryPtr, do_stores
from cython.cimports.shadowmmu.machine.vcpu.quick_registers import take_registers
from cython.cimports.shadowmmu.machine.vcpu.quick_state import (
    CPL,
    NOTED,
    SEGMENT_BYTES,
    NotedPtr,
    look,
)
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Efer, Rflags

from shadowmmu.hardware.second_level import SecondLevelFault


def deliver_fault(engine: cython.p_void, quick: QuickPtr, code: uint32_t, address: uint64_t) -> cython.bint:
    """A #PF that is the guest's."""
    d: DeliveryPtr = cython.address(quick.delivery)
    memset(cython.address(d.event), 0, cython.sizeof(d.event))
    d.event.vector, d.event.pushes_error_code, d.event.error_code = 14, True, code
    if not deliver(engine, quick):
        return False
    quick.vcpu.cr2 = address
    note_fault(quick)
    return True


def deliver_interrupt(engine: cython.p_void, quick: QuickPtr, vector: uint8_t, next_rip: uint64_t) -> cython.bint:
    """INT n and its like."""
    d: DeliveryPtr = cython.address(quick.delivery)
    memset(cython.address(d.event), 0, cython.sizeof(d.event))
    d.event.vector, d.event.software, d.event.has_next_rip, d.event.next_rip = vector, True, True, next_rip
    if not deliver(engine, quick):
        return False
    quick.interrupts[vector] += 1
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def deliver(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """In protected mode, and not from virtual-8086 mode."""
    vcpu: KvmVcpuPtr = quick.vcpu
    d: DeliveryPtr = cython.address(quick.delivery)
    if not quick.delivers or vcpu.requests or vcpu.mmu.root.hpa == Hpa.INVALID_PAGE:
        return False
    begin_delivery(quick.tlb, vcpu)
    if not look(engine, quick) or not vcpu.cr0 & Cr0.PE or quick.flags & Rflags.VM:
        return False
    take_registers(quick, cython.address(d.registers))
    d.memory.owner = quick
    d.memory.translate, d.memory.load, d.memory.store = translate, load, store
    d.memory.mask, d.memory.canonical_bits = quick.wrap, 57 if vcpu.cr4 & Cr4.LA57 else 48
    d.real, d.long_mode, d.v86 = False, (vcpu.efer & Efer.LMA) != 0, False
    if not deliver_event(d) or meets_code(quick):
        return False
    do_stores(d)
    put_registers(engine, quick)
    return True


# --- registers


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_segment(quick: QuickPtr, number: cython.int) -> uint32_t:
    """Its flags."""
    at: p_u8 = quick.segments + SEGMENT_BYTES * number
    segment: RegisterPtr = cython.address(quick.delivery.registers.segments[number])
    flags: cython.pointer(uint32_t) = cython.cast(cython.pointer(uint32_t), at + 20)
    if memcmp(segment, cython.address(quick.delivery.before.segments[number]), cython.sizeof(quick.delivery.before.segments[0])):
        cython.cast(cython.pointer(uint32_t), at)[0] = segment.selector
        cython.cast(cython.pointer(uint64_t), at + 8)[0] = segment.base
        cython.cast(cython.pointer(uint32_t), at + 16)[0] = segment.limit
        flags[0] = (segment.attr & 0xFF) << 8 | (segment.attr & 0xF00) << 12
    return flags[0]


def put_registers(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """CS, SS, RSP, RIP, EFLAGS: nothing else is another one in a handler."""
    d: DeliveryPtr = cython.address(quick.delivery)
    mode: cython.pointer(uint32_t) = cython.cast(cython.pointer(uint32_t), quick.mode)
    code: uint32_t = put_segment(quick, CS)
    stack: uint32_t = put_segment(quick, 2)
    bases: uint64_t = d.registers.segments[0].base | d.registers.segments[2].base | d.registers.segments[3].base
    mode[0] = mode_flags(mode[0], code, stack, bases, d.registers.cpl, d.long_mode)
    quick.gpr[4] = d.registers.gpr[4]
    quick.rip[0] = d.registers.rip
    quick.restore(engine, quick.context)
    quick.flags = d.registers.rflags
    quick.reg_write(engine, quick.flags_register, cython.address(quick.flags))


# --- memory


def translate(owner: cython.p_void, gva: uint64_t, access: uint64_t, place: cython.pointer(uint64_t)) -> cython.bint:
    quick: QuickPtr = cython.cast(QuickPtr, owner)
    page: uint64_t = gva >> 12
    found: TranslationPtr = place_for(quick.tlb, page, access)
    if not is_kept(quick.tlb, found, page, access):
        if not walk_tables(quick, gva, access, place):
            return False
        keep_place(quick.tlb, page, access, place[0] & ~cython.cast(uint64_t, 0xFFF))
    place[0] = found.place | (gva & 0xFFF)
    return frame_memory(quick.vcpu.kvm, place[0], 1) != cython.NULL


def walk_tables(quick: QuickPtr, gva: uint64_t, access: uint64_t, place: cython.pointer(uint64_t)) -> cython.bint:
    """`cpu_walk`; False: it faults."""
    with cython.gil:
        if not quick.vcpu.kvm.tdp:
            return cython.cast(ShadowTables, quick.tables).find(gva, access, place) == FOUND
        try:
            return cython.cast(NestedTables, quick.nested_tables).find(gva, access, place)
        except SecondLevelFault:
            return False


def load(owner: cython.p_void, place: uint64_t, size: uint64_t, into: cython.p_void) -> cython.bint:
    memcpy(into, frame_memory(cython.cast(QuickPtr, owner).vcpu.kvm, place, size), size)
    return True


def store(owner: cython.p_void, place: uint64_t, size: uint64_t, data: cython.p_void) -> cython.bint:
    memcpy(frame_memory(cython.cast(QuickPtr, owner).vcpu.kvm, place, size), data, size)
    return True


def meets_code(quick: QuickPtr) -> cython.bint:
    """A store of the delivery goes where code may have been translated from, or where hardware does not store."""
    d: DeliveryPtr = cython.address(quick.delivery)
    i: cython.int
    part: cython.int
    for i in range(d.stores):
        for part in range(d.store[i].span.parts):
            place: uint64_t = d.store[i].span.place[part]
            at: p_u8 = frame_memory(quick.vcpu.kvm, place, d.store[i].span.size[part])
            if is_marked(quick.code, place) or at == cython.NULL or not is_guest_frame(quick.vcpu.kvm, at):
                return True
    return False


# --- what others are told


def note_fault(quick: QuickPtr) -> cython.void:
    """For `FaultWitness`."""
    noted: NotedPtr = cython.address(quick.noted[quick.faults % NOTED])
    d: DeliveryPtr = cython.address(quick.delivery)
    noted.at, noted.error_code, noted.address = quick.first + quick.served, d.event.error_code, quick.vcpu.cr2
    noted.rip, noted.base = d.before.rip, d.before.segments[CS].base
    noted.cpl, noted.bits = d.before.cpl, 16
    if d.before.segments[CS].attr & 0x400:
        noted.bits = 32
    if d.long_mode and d.before.segments[CS].attr & 0x200:
        noted.bits = 64
    quick.faults += 1


def note_code(engine: cython.p_void, quick: QuickPtr, linear: uint64_t) -> cython.void:
    """Mark the page that it lies in: it has just been fetched."""
    place: uint64_t = 0
    if quick.translate(engine, linear, TO_FETCH, cython.address(place)):
        quick.code.all = True
    else:
        mark(quick.code, place)


def checks_alignment(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """Code is translated for the flags and the CPL that it is about to run with: it runs with EFLAGS.AC, in ring 3."""
    flags: uint64_t = 0
    code: uint64_t = 0
    quick.reg_read(engine, quick.flags_register, cython.address(flags))
    quick.reg_read(engine, quick.code_register, cython.address(code))
    return flags & Rflags.AC and (flags & Rflags.VM or (code & CPL) == 3)


def on_translated(engine: cython.p_void, block: TranslatedPtr, before: TranslatedPtr, data: cython.p_void) -> cython.void:
    """The engine's hook for a block that has been translated: its first and its last byte. The CPU stops before one that is to check
    alignment."""
    quick: QuickPtr = cython.cast(QuickPtr, data)
    if quick.vcpu.cr0 & Cr0.AM and not quick.met_alignment and checks_alignment(engine, quick):
        quick.met_alignment = True
        want_stop(quick.request)
    if block.pc >> 12 != quick.stub >> 12:
        note_code(engine, quick, block.pc & quick.wrap)
        note_code(engine, quick, (block.pc + max(block.size, 1) - 1) & quick.wrap)
