# SPDX-License-Identifier: GPL-2.0-only
"""Delivery of one event through the guest's IDT, on registers and memory of any kind: real, virtual-8086, protected and long mode.

Rules: SDM vol. 3 chapter 6 (6.12-6.14) and section 20.1.4; APM vol. 2 chapter 8. A step that gives False has failed: `failure` tells
how, and no memory has changed. Stores are done only when all have been located.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.shadowmmu.machine.cpu.registers import (
    CS,
    DS,
    ES,
    FS,
    GS,
    RSP,
    SS,
    DescriptorTable,
    Register,
    RegisterPtr,
    Registers,
)
from cython.cimports.shadowmmu.machine.vcpu.delivery_state import (
    Bit,
    DeliveryPtr,
    Failure,
    Gate,
    GateKind,
    GatePtr,
    Stack,
    StackPtr,
    Vector,
    raises,
    raises_for,
    raises_for_gate,
    read,
    store_later,
)
from cython.cimports.shadowmmu.x86.control import Rflags
from cython.cimports.shadowmmu.x86.pferr import Pferr


def deliver_event(d: DeliveryPtr) -> cython.bint:
    """Make `registers` those of the handler's first instruction; what is to be stored waits for `do_stores`."""
    d.before = d.registers
    d.stores, d.failure = 0, Failure.NO_FAILURE
    return through_real_mode(d) if d.real else through_gate(d)


# --- common parts


def return_rip(d: DeliveryPtr) -> uint64_t:
    return d.event.next_rip if d.event.has_next_rip else d.before.rip


def frame_flags(d: DeliveryPtr) -> uint64_t:
    """RF is set for a fault, which returns to the instruction that raised it; behind an instruction it is clear, also where this CPU
    lets an IRET's go on to the end of a block."""
    vector: uint8_t = d.event.vector
    contributory: cython.bint = vector == Vector.DIVIDE or Vector.BAD_TSS <= vector <= Vector.PAGE_FAULT
    other: cython.bint = Vector.BOUND <= vector <= Vector.NO_DEVICE or vector == Vector.FLOATING_POINT or vector == Vector.ALIGNMENT
    if (contributory or other or vector == Vector.SIMD) and not d.event.software and not d.event.external:
        return d.before.rflags | Rflags.RF
    return d.before.rflags & ~cython.cast(uint64_t, Rflags.RF) if d.event.has_next_rip else d.before.rflags


def enter(d: DeliveryPtr, code: RegisterPtr, rip: uint64_t, clear: uint64_t) -> cython.void:
    d.registers.segments[CS] = code[0]
    d.registers.rip = rip
    d.registers.rflags = (d.registers.rflags & ~clear) | Rflags.FIXED


# --- real mode


def through_real_mode(d: DeliveryPtr) -> cython.bint:
    target: uint32_t = 0
    stack: Stack
    code: Register = d.before.segments[CS]
    at: uint64_t = 4 * cython.cast(uint64_t, d.event.vector)
    if cython.cast(int64_t, at + 3) > d.before.idtr.limit:
        return raises(d, Vector.PROTECTION, 0)
    if not read(d, d.before.idtr.base + at, 4, cython.address(target)):
        return False
    stack.segment, stack.old, stack.pointer = d.before.segments[SS], True, d.before.gpr[RSP]
    set_up_stack(d, cython.address(stack), 2, 0)
    flags: uint64_t = frame_flags(d) & ~cython.cast(uint64_t, Rflags.RF)
    if not push(cython.address(stack), flags) or not push(cython.address(stack), code.selector):
        return False
    if not push(cython.address(stack), return_rip(d)):
        return False
    commit(cython.address(stack))
    code.selector = target >> 16
    code.base = cython.cast(uint64_t, code.selector) << 4
    enter(d, cython.address(code), target & 0xFFFF, Rflags.INTR | Rflags.TF | Rflags.AC | Rflags.RF)
    return True


# --- protected and long mode


def through_gate(d: DeliveryPtr) -> cython.bint:
    gate: Gate
    code: Register
    cpl: uint8_t = 0
    if not read_gate(d, cython.address(gate)) or not code_segment(d, gate.selector, cython.address(code), cython.address(cpl)):
        return False
    if not (long_frame(d, cython.address(gate), cpl) if d.long_mode else legacy_frame(d, cython.address(gate), cpl)):
        return False
    d.registers.cpl = cpl
    clear: uint64_t = Rflags.TF | Rflags.NT | Rflags.RF | Rflags.VM
    if gate.kind == GateKind.GATE_16 or gate.kind == GateKind.GATE_32:
        clear |= Rflags.INTR
    narrow: cython.bint = gate.kind == GateKind.GATE_16 or gate.kind == GateKind.GATE_TRAP_16
    enter(d, cython.address(code), gate.offset & 0xFFFF if narrow else gate.offset, clear)
    return True


def read_gate(d: DeliveryPtr, gate: GatePtr) -> cython.bint:
    raw: uint64_t[2] = [0, 0]
    size: uint64_t = 16 if d.long_mode else 8
    at: uint64_t = d.event.vector * size
    if cython.cast(int64_t, at + size - 1) > d.before.idtr.limit:
        return raises_for_gate(d, Vector.PROTECTION)
    if not read(d, d.before.idtr.base + at, size, raw):
        return False
    gate.offset = (raw[0] & 0xFFFF) | (raw[0] >> 32 & cython.cast(uint64_t, 0xFFFF0000)) | raw[1] << 32
    gate.selector = raw[0] >> 16 & 0xFFFF
    gate.kind, gate.dpl, gate.ist = raw[0] >> 40 & 0x1F, raw[0] >> 45 & 3, raw[0] >> 32 & 7
    return check_gate(d, gate, raw[0] >> 47 & 1)


def check_gate(d: DeliveryPtr, gate: GatePtr, present: cython.bint) -> cython.bint:
    wide: cython.bint = gate.kind == GateKind.GATE_32 or gate.kind == GateKind.GATE_TRAP_32
    narrow: cython.bint = gate.kind == GateKind.GATE_16 or gate.kind == GateKind.GATE_TRAP_16
    if not wide and (d.long_mode or not (narrow or gate.kind == GateKind.GATE_TASK)):
        return raises_for_gate(d, Vector.PROTECTION)
    if d.event.software and gate.dpl < d.before.cpl:
        return raises_for_gate(d, Vector.PROTECTION)
    if not present:
        return raises_for_gate(d, Vector.NOT_PRESENT)
    if gate.kind == GateKind.GATE_TASK:
        d.failure, d.code = Failure.TASK_GATE, gate.selector
        return False
    return True


# --- segments


def read_descriptor(
    d: DeliveryPtr, selector: uint32_t, vector: uint8_t, found: RegisterPtr, address: cython.pointer(uint64_t)
) -> cython.bint:
    """The segment that a selector names, and the linear address of its descriptor; `vector` is raised if there is none."""
    table: DescriptorTable = d.before.gdtr
    raw: uint64_t = 0
    if selector & 4:
        table.base = d.before.ldtr.base
        table.limit = cython.cast(int64_t, d.before.ldtr.limit) if d.before.ldtr.attr & Bit.PRESENT else -1
    if cython.cast(int64_t, selector | 7) > table.limit:
        return raises_for(d, vector, selector)
    address[0] = table.base + (selector & 0xFFF8)
    if not read(d, address[0], 8, cython.address(raw)):
        return False
    found.selector = selector
    found.attr = (raw >> 40 & 0xFF) | (raw >> 44 & 0xF00)
    found.limit = (raw & 0xFFFF) | (raw >> 32 & 0xF0000)
    if found.attr & Bit.GRANULARITY:
        found.limit = found.limit << 12 | 0xFFF
    found.base = (raw >> 16 & 0xFFFFFF) | (raw >> 32 & cython.cast(uint64_t, 0xFF000000))
    return True


def code_segment(d: DeliveryPtr, selector: uint32_t, found: RegisterPtr, cpl: cython.pointer(uint8_t)) -> cython.bint:
    """The handler's code segment and its privilege level. SDM vol. 3 section 6.12.1.1."""
    address: uint64_t = 0
    if not selector & 0xFFFC:
        return raises_for(d, Vector.PROTECTION, 0)
    if not read_descriptor(d, selector, Vector.PROTECTION, found, cython.address(address)):
        return False
    dpl: uint8_t = found.attr >> 5 & 3
    bad: cython.bint = (found.attr & (Bit.NON_SYSTEM | Bit.CODE)) != (Bit.NON_SYSTEM | Bit.CODE) or dpl > d.before.cpl
    if bad or (d.long_mode and (found.attr & (Bit.LONG | Bit.BIG)) != Bit.LONG):
        return raises_for(d, Vector.PROTECTION, selector)
    if not found.attr & Bit.PRESENT:
        return raises_for(d, Vector.NOT_PRESENT, selector)
    cpl[0] = d.before.cpl if found.attr & Bit.EXPAND_DOWN else dpl
    if d.v86 and cpl[0]:
        return raises_for(d, Vector.PROTECTION, selector)
    found.selector = (selector & ~cython.cast(uint32_t, 3)) | cpl[0]
    return mark_accessed(d, found, address)


def mark_accessed(d: DeliveryPtr, segment: RegisterPtr, address: uint64_t) -> cython.bint:
    """In its descriptor, too."""
    if segment.attr & Bit.ACCESSED:
        return True
    segment.attr |= Bit.ACCESSED
    return store_later(d, address + 5, 1, Pferr.IMPLICIT, segment.attr & 0xFF)


def read_tss(d: DeliveryPtr, offset: uint64_t, size: uint64_t, into: cython.p_void) -> cython.bint:
    tr: RegisterPtr = cython.address(d.before.tr)
    if offset + size - 1 > tr.limit:
        return raises_for(d, Vector.BAD_TSS, tr.selector)
    return read(d, tr.base + offset, size, into)


def inner_stack(d: DeliveryPtr, cpl: uint8_t, stack: StackPtr) -> cython.bint:
    """The stack for a more privileged level, from a 16- or 32-bit TSS. SDM vol. 3 section 6.12.1."""
    width: uint64_t = 4 if d.before.tr.attr & 8 else 2
    at: uint64_t = width + 2 * width * cpl
    selector: uint32_t = 0
    address: uint64_t = 0
    found: RegisterPtr = cython.address(stack.segment)
    stack.pointer, stack.old = 0, False
    if not read_tss(d, at, width, cython.address(stack.pointer)) or not read_tss(d, at + width, 2, cython.address(selector)):
        return False
    if not selector & 0xFFFC:
        return raises_for(d, Vector.BAD_TSS, 0)
    if not read_descriptor(d, selector, Vector.BAD_TSS, found, cython.address(address)):
        return False
    writable: cython.bint = (found.attr & (Bit.NON_SYSTEM | Bit.CODE | Bit.WRITABLE)) == (Bit.NON_SYSTEM | Bit.WRITABLE)
    if (selector & 3) != cpl or (found.attr >> 5 & 3) != cpl or not writable:
        return raises_for(d, Vector.BAD_TSS, selector)
    if not found.attr & Bit.PRESENT:
        return raises_for(d, Vector.STACK_FAULT, selector)
    return mark_accessed(d, found, address)


# --- frames


def long_stack(d: DeliveryPtr, gate: GatePtr, cpl: uint8_t, stack: StackPtr) -> cython.bint:
    stack.segment.selector, stack.segment.attr = 0, Bit.PRESENT | Bit.NON_SYSTEM | Bit.WRITABLE | Bit.BIG
    stack.segment.base, stack.segment.limit, stack.old = 0, cython.cast(uint64_t, -1), False
    stack.pointer = d.before.gpr[RSP]
    if gate.ist and not read_tss(d, 0x24 + 8 * (gate.ist - 1), 8, cython.address(stack.pointer)):
        return False
    if not gate.ist and cpl != d.before.cpl and not read_tss(d, 4 + 8 * cpl, 8, cython.address(stack.pointer)):
        return False
    stack.pointer &= ~cython.cast(uint64_t, 0xF)
    return True


def long_frame(d: DeliveryPtr, gate: GatePtr, cpl: uint8_t) -> cython.bint:
    stack: Stack
    if not long_stack(d, gate, cpl, cython.address(stack)):
        return False
    set_up_stack(d, cython.address(stack), 8, Pferr.USER if cpl == 3 else 0)
    if not push_outer(d, cython.address(stack)):
        return False
    commit(cython.address(stack))
    if cpl != d.before.cpl:  # SS gets a null selector
        d.registers.segments[SS].selector, d.registers.segments[SS].attr = cpl, cython.cast(uint32_t, cpl) << 5
        d.registers.segments[SS].limit = d.registers.segments[SS].base = 0
    return True


def push_outer(d: DeliveryPtr, stack: StackPtr) -> cython.bint:
    """SS and RSP, if they are on the frame, then what always is."""
    b: cython.pointer(Registers) = cython.address(d.before)
    outer: cython.bint = d.long_mode or not stack.old
    if outer and (not push(stack, b.segments[SS].selector) or not push(stack, b.gpr[RSP])):
        return False
    if not push(stack, frame_flags(d)) or not push(stack, b.segments[CS].selector) or not push(stack, return_rip(d)):
        return False
    return not d.event.pushes_error_code or push(stack, d.event.error_code)


def legacy_frame(d: DeliveryPtr, gate: GatePtr, cpl: uint8_t) -> cython.bint:
    stack: Stack
    b: cython.pointer(Registers) = cython.address(d.before)
    i: cython.int
    order: cython.int[4] = [GS, FS, DS, ES]
    if cpl == b.cpl and not d.v86:
        stack.segment, stack.old, stack.pointer = b.segments[SS], True, b.gpr[RSP]
    elif not inner_stack(d, cpl, cython.address(stack)):
        return False
    narrow: cython.bint = gate.kind == GateKind.GATE_16 or gate.kind == GateKind.GATE_TRAP_16
    set_up_stack(d, cython.address(stack), 2 if narrow else 4, Pferr.USER if cpl == 3 else 0)
    if d.v86:
        for i in range(4):
            if not push(cython.address(stack), b.segments[order[i]].selector):
                return False
            d.registers.segments[order[i]].selector = d.registers.segments[order[i]].attr = 0
            d.registers.segments[order[i]].limit = d.registers.segments[order[i]].base = 0
    if not push_outer(d, cython.address(stack)):
        return False
    if not stack.old:
        d.registers.segments[SS] = stack.segment
    commit(cython.address(stack))
    return True


def set_up_stack(d: DeliveryPtr, stack: StackPtr, width: cython.int, user: uint64_t) -> cython.void:
    """Pushes of so many bytes; `user`: as at CPL 3."""
    stack.delivery, stack.width, stack.access = d, width, user
    stack.mask = cython.cast(uint64_t, 0xFFFFFFFF) if stack.segment.attr & Bit.BIG else 0xFFFF
    if width == 8:
        stack.mask = cython.cast(uint64_t, -1)


def push(stack: StackPtr, value: uint64_t) -> cython.bint:
    stack.pointer = (stack.pointer & ~stack.mask) | ((stack.pointer - stack.width) & stack.mask)
    offset: uint64_t = stack.pointer & stack.mask
    if not is_within(stack, offset):
        return raises_for(stack.delivery, Vector.STACK_FAULT, 0 if stack.old else stack.segment.selector)
    return store_later(stack.delivery, stack.segment.base + offset, stack.width, stack.access, value)


def is_within(stack: StackPtr, offset: uint64_t) -> cython.bint:
    """Inside the segment's limit; in long mode: canonical."""
    if stack.width == 8:
        upper: uint64_t = offset >> (stack.delivery.memory.canonical_bits - 1)
        return upper == 0 or upper == cython.cast(uint64_t, -1) >> (stack.delivery.memory.canonical_bits - 1)
    end: uint64_t = offset + stack.width - 1
    if (stack.segment.attr & (Bit.CODE | Bit.EXPAND_DOWN)) == Bit.EXPAND_DOWN:
        return stack.segment.limit < offset and end <= stack.mask
    return end <= stack.segment.limit


def commit(stack: StackPtr) -> cython.void:
    rsp: cython.pointer(uint64_t) = cython.address(stack.delivery.registers.gpr[RSP])
    if stack.width == 8 or stack.segment.attr & Bit.BIG:
        rsp[0] = stack.pointer & stack.mask
    else:
        rsp[0] = (rsp[0] & ~cython.cast(uint64_t, 0xFFFF)) | (stack.pointer & 0xFFFF)
