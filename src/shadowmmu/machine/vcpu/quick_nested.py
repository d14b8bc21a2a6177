# SPDX-License-Identifier: GPL-2.0-only
"""Nested page faults in the CPU's hook: `exits.handlers`, of an instruction that has been decoded before. What the MMU mends at once, and
what is L1's."""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SIZE, PfRet
from cython.cimports.shadowmmu.engine.fault.fault import mmu_page_fault
from cython.cimports.shadowmmu.machine.cpu.registers import CS, DescriptorTable, RegistersPtr
from cython.cimports.shadowmmu.machine.emulator.code_places import AddressPtr, PlacePtr, address_of
from cython.cimports.shadowmmu.machine.memory.fault_cause import cause_at, is_of_table, leads_to
from cython.cimports.shadowmmu.machine.memory.guest_tables import GuestTables
from cython.cimports.shadowmmu.machine.vcpu.quick_emulation import emulate
from cython.cimports.shadowmmu.machine.vcpu.quick_registers import take_registers
from cython.cimports.shadowmmu.machine.vcpu.quick_state import Served, bits_of_code, came_to, is_there, known_at_rip, look, segment_base
from cython.cimports.shadowmmu.machine.vcpu.quick_svm import vmexit
from cython.cimports.shadowmmu.x86.control import Cr0
from cython.cimports.shadowmmu.x86.pferr import Pferr
from cython.cimports.shadowmmu.x86.vmcb_layout import NESTED_PAGE_FAULT_EXIT

from shadowmmu.machine.emulator.look_ahead import goes_on_behind


def serve_nested_fault(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """False: it is left to the loop."""
    if may_be_early(quick):
        return False
    cause: uint64_t = cause_of(engine, quick)
    if not cause:
        return False
    result: cython.int = mmu_page_fault(quick.vcpu, quick.address[0], quick.error_code[0] | cause)
    if result == PfRet.RET_PF_FIXED:
        came_to(quick, Served.NESTED_FIXED)
    elif result == PfRet.RET_PF_SPURIOUS:
        came_to(quick, Served.NESTED_SPURIOUS)
    elif not (result == PfRet.RET_PF_INJECT and pass_on_nested(engine, quick, cause)) and not (
        result == PfRet.RET_PF_EMULATE and emulate(engine, quick, quick.address[0], Served.NESTED_EMULATED)
    ):
        quick.result = result
        return False
    return True


def pass_on_nested(engine: cython.p_void, quick: QuickPtr, cause: uint64_t) -> cython.bint:
    """L2 has met L1's nested tables."""
    info: uint64_t = quick.vcpu.exception.error_code | cause
    return quick.svm.runs and vmexit(engine, quick, NESTED_PAGE_FAULT_EXIT, info, quick.address[0], False, Served.NESTED_FOR_L1)


def may_be_early(quick: QuickPtr) -> cython.bint:
    """`page_boundary`: the CPU has looked ahead into the next page, for code or for an entry that leads to it."""
    code: uint32_t = quick.error_code[0]
    rip: uint64_t = (segment_base(quick, CS) + quick.rip[0]) & quick.wrap
    if not code & (Pferr.FETCH | Pferr.WRITE) or not rip & (PAGE_SIZE - 1):
        return False
    if code & Pferr.FETCH and quick.address[0] & (PAGE_SIZE - 1):
        return False
    page: uint64_t = ((rip | (PAGE_SIZE - 1)) + 1) & quick.wrap
    with cython.gil:
        if page < rip or not (code & Pferr.FETCH or leads_to(cython.cast(GuestTables, quick.guest_tables), page, quick.address[0])):
            return False
        return goes_on_behind(cython.cast(object, quick.owner), rip, page - rip, bits_of_code(quick))


def cause_of(engine: cython.p_void, quick: QuickPtr) -> uint64_t:
    """Bit 32 or 33 of EXITINFO1, which only of a write is in doubt; 0: the instruction is none that is known."""
    touched: uint64_t[MOST_TOUCHED]
    if not quick.error_code[0] & Pferr.WRITE:
        return Pferr.GUEST_FINAL
    place: PlacePtr = known_at_rip(quick)
    if place == cython.NULL or place.touches < 0 or not look(engine, quick) or not is_there(quick, place):
        return 0
    if not quick.vcpu.cr0 & Cr0.PG:
        return Pferr.GUEST_FINAL
    return cause_by(quick, touched, find_touched(quick, place, touched))


def find_touched(quick: QuickPtr, place: PlacePtr, touched: cython.pointer(uint64_t)) -> cython.int:
    """First and last linear address of the instruction and of each of its memory operands; how many."""
    i: cython.int
    touched[0] = segment_base(quick, CS) + quick.rip[0]
    touched[1] = touched[0] + place.length - 1
    for i in range(place.touches):
        used: AddressPtr = cython.address(place.touched[i])
        touched[2 * i + 2] = address_of(used, quick.gpr, segment_base(quick, used.segment))
        touched[2 * i + 3] = touched[2 * i + 2] + max(used.size, 1) - 1
    return 2 * place.touches + 2


def cause_by(quick: QuickPtr, touched: cython.pointer(uint64_t), number: cython.int) -> uint64_t:
    """`memory.fault_cause`."""
    i: cython.int
    found: uint64_t = 0
    with cython.gil:
        tables: GuestTables = cython.cast(GuestTables, quick.guest_tables)
        for i in range(number):
            if not i or touched[i] // PAGE_SIZE != touched[i - 1] // PAGE_SIZE:
                found |= cause_at(tables, touched[i] & quick.wrap, quick.address[0])
        if not found:
            found = Pferr.GUEST_PAGE if is_of_tables(quick, tables) else Pferr.GUEST_FINAL
    return Pferr.GUEST_PAGE if found & Pferr.GUEST_PAGE else found


def is_of_tables(quick: QuickPtr, tables: GuestTables) -> cython.bint:
    """GDT, IDT, LDT or TSS."""
    i: cython.int
    registers: RegistersPtr = cython.address(quick.registers)
    table: DescriptorTable[4]
    take_registers(quick, registers)
    table[0], table[1] = registers.gdtr, registers.idtr
    table[2].base, table[2].limit = registers.ldtr.base, registers.ldtr.limit
    table[3].base, table[3].limit = registers.tr.base, registers.tr.limit
    found: cython.bint = False
    for i in range(4):
        found = found or is_of_table(tables, cython.address(table[i]), quick.address[0])
    return found
