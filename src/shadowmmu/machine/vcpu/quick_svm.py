# SPDX-License-Identifier: GPL-2.0-only
"""A hypervisor's own exits in the CPU's hook: VMRUN and its like (`svm.instructions`), and what of L2's exits is L1's (`svm.reflect`).

Left to the loop is what it has more to do for: an event to inject, a virtual interrupt, single steps, breakpoints on data, exits with
EXITINFO, and an L2 that is a hypervisor itself.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, PAGE_SIZE, KvmVcpuPtr, p_u8
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest, write_guest
from cython.cimports.shadowmmu.engine.pages.zap import unprotect_page
from cython.cimports.shadowmmu.machine.cpu.registers import RAX
from cython.cimports.shadowmmu.machine.cpu.vmcb_page import get_u8, get_u64
from cython.cimports.shadowmmu.machine.emulator.code_places import Doing, PlacePtr
from cython.cimports.shadowmmu.machine.vcpu.quick_devices import call_host
from cython.cimports.shadowmmu.machine.vcpu.quick_emulation import is_plain_memory
from cython.cimports.shadowmmu.machine.vcpu.quick_registers import take_registers, take_registers_behind
from cython.cimports.shadowmmu.machine.vcpu.quick_state import (
    CPL,
    REFLECTED,
    Served,
    came_to,
    complete,
    instruction_at_rip,
    is_of_rip,
    look,
)
from cython.cimports.shadowmmu.machine.vcpu.svm_state import (
    V_IRQ,
    V_MASKING,
    SvmPtr,
    find_intercepts,
    has_data_breakpoints,
    is_wanted,
)
from cython.cimports.shadowmmu.machine.vcpu.svm_switch import enter_l2, leave_l2, load_hidden, save_hidden
from cython.cimports.shadowmmu.x86.control import Cr0, Efer, Rflags
from cython.cimports.shadowmmu.x86.pferr import Pferr
from cython.cimports.shadowmmu.x86.vmcb_layout import (
    CLGI_EXIT,
    CPUID_EXIT,
    INVLPG_EXIT,
    PAGE_FAULT_EXIT,
    STGI_EXIT,
    VMLOAD_EXIT,
    VMMCALL_EXIT,
    VMRUN_EXIT,
    VMSAVE_EXIT,
    Vmcb,
)

VALID = cython.declare(uint64_t, 1 << 31)

# --- instructions of L1


def is_svm(code: uint32_t) -> cython.bint:
    return VMRUN_EXIT <= code <= CLGI_EXIT


def serve_svm(engine: cython.p_void, quick: QuickPtr, code: uint32_t) -> cython.bint:
    """False: it is left to the loop."""
    if quick.svm.runs or not look(engine, quick) or not may_do(quick):
        return False
    if code in (STGI_EXIT, CLGI_EXIT):
        return set_gif(engine, quick, code)
    place: PlacePtr = instruction_of(quick, code)
    if place == cython.NULL or not is_vmcb(quick, quick.gpr[RAX] & place.value):
        return False
    gpa: uint64_t = quick.gpr[RAX] & place.value
    page: uint8_t[4096]
    if not read_guest(quick.vcpu.kvm, 0, gpa, page, PAGE_SIZE):
        return False
    if code == VMRUN_EXIT:
        return vmrun(quick, place, gpa, page)
    return vmload(quick, place, page) if code == VMLOAD_EXIT else code == VMSAVE_EXIT and vmsave(engine, quick, place, gpa, page)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def may_do(quick: QuickPtr) -> cython.bint:
    """Such instructions are there, in ring 0 of protected mode."""
    if not quick.vcpu.efer & Efer.SVME or not quick.vcpu.cr0 & Cr0.PE or quick.flags & Rflags.VM:
        return False
    return not quick.mode[0] & CPL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def instruction_of(quick: QuickPtr, code: uint32_t) -> PlacePtr:
    place: PlacePtr = instruction_at_rip(quick, Doing.SVM)
    return cython.NULL if place == cython.NULL or place.number != code else place


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_vmcb(quick: QuickPtr, gpa: uint64_t) -> cython.bint:
    """The start of a page of memory that no CPU has translated code from."""
    return not gpa & (PAGE_SIZE - 1) and not gpa >> quick.vcpu.kvm.maxphyaddr and is_plain_memory(quick, gpa, 0)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_gif(engine: cython.p_void, quick: QuickPtr, code: uint32_t) -> cython.bint:
    place: PlacePtr = instruction_of(quick, code)
    if place == cython.NULL:
        return False
    quick.svm.gif = code == STGI_EXIT
    complete(engine, quick, place)
    came_to(quick, Served.SVM)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmload(quick: QuickPtr, place: PlacePtr, page: p_u8) -> cython.bint:
    if not step(quick, place):
        return False
    load_hidden(quick.svm, cython.address(quick.registers), page)
    quick.anew = True
    came_to(quick, Served.SVM)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmsave(engine: cython.p_void, quick: QuickPtr, place: PlacePtr, gpa: uint64_t, page: p_u8) -> cython.bint:
    take_registers(quick, cython.address(quick.registers))
    save_hidden(quick.svm, cython.address(quick.registers), page)
    store_physical(quick, gpa, PAGE_SIZE, page)
    if instruction_of(quick, VMSAVE_EXIT) == cython.NULL:
        return False
    complete(engine, quick, place)
    came_to(quick, Served.SVM)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def vmrun(quick: QuickPtr, place: PlacePtr, gpa: uint64_t, page: p_u8) -> cython.bint:
    svm: SvmPtr = quick.svm
    more: uint64_t = get_u64(page, Vmcb.V_INTR) & (V_IRQ | V_MASKING) | get_u64(page, Vmcb.EVENT_INJ) & VALID
    if has_data_breakpoints(get_u64(page, Vmcb.DR7)):
        return False
    if more or get_u8(page, Vmcb.INTERRUPT_SHADOW) & 1 or not step(quick, place):
        return False
    svm.owner, svm.store = quick, store_physical
    enter_l2(svm, cython.address(quick.registers), page, gpa, 0)
    switch(quick)
    came_to(quick, Served.SVM)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def step(quick: QuickPtr, place: PlacePtr) -> cython.bint:
    """The registers behind the instruction, which is fetched once more in order to be skipped."""
    if instruction_of(quick, place.number) == cython.NULL:
        return False
    take_registers_behind(quick, place, cython.address(quick.registers))
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def switch(quick: QuickPtr) -> cython.void:
    """The guest is another one now."""
    quick.entry.intercepts = find_intercepts(quick.svm, False)
    quick.anew = True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_physical(owner: cython.p_void, gpa: uint64_t, size: uint64_t, data: cython.p_void) -> cython.void:
    """`GuestMemory.store_physical`, where no code is."""
    vcpu: KvmVcpuPtr = cython.cast(QuickPtr, owner).vcpu
    unprotect_page(vcpu.kvm, gpa >> PAGE_SHIFT)
    write_guest(vcpu.kvm, 0, gpa, data, size)


def serve_hypercall(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """VMMCALL that is not L1's."""
    place: PlacePtr = instruction_of(quick, VMMCALL_EXIT) if quick.is_pc and look(engine, quick) else cython.NULL
    if place == cython.NULL:
        return False
    call_host(quick)
    complete(engine, quick, place)
    came_to(quick, Served.SVM)
    return True


# --- exits of L2


def is_for_l1(quick: QuickPtr, code: uint32_t) -> cython.bint:
    """It is one that L1 takes as it is; a #PF with shadow paging the MMU has a say in first."""
    if code == PAGE_FAULT_EXIT:
        return quick.vcpu.kvm.tdp and is_wanted(quick.svm, code)
    return (code < 0x20 or code in (CPUID_EXIT, INVLPG_EXIT, VMMCALL_EXIT)) and is_wanted(quick.svm, code)


def pass_on(engine: cython.p_void, quick: QuickPtr, code: uint32_t) -> cython.bint:
    """`reflect.reflect`; a #PF is that of L2's own tables."""
    error: uint32_t = quick.error_code[0]
    if code != PAGE_FAULT_EXIT:
        return vmexit(engine, quick, code, 0, 0, False, served_as(code))
    if not is_its_own(quick, error):
        return False
    return vmexit(engine, quick, code, error, quick.address[0] & quick.wrap, False, Served.OWN_FAULT)


def is_its_own(quick: QuickPtr, error: uint32_t) -> cython.bint:
    """Of the instruction at RIP, and as this processor tells it: the CPU has not looked ahead."""
    return not error & Pferr.RSVD and not (error & Pferr.FETCH and not is_of_rip(quick))


def pass_on_fault(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """The #PF that the MMU has found to be L2's."""
    vcpu: KvmVcpuPtr = quick.vcpu
    return vmexit(engine, quick, PAGE_FAULT_EXIT, vcpu.exception.error_code, vcpu.exception.address, True, Served.FAULT_FOR_L1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def served_as(code: uint32_t) -> cython.int:
    if code < 0x20:
        return Served.CR_READ if code < 0x10 else Served.CR_WRITE
    if code == CPUID_EXIT:
        return Served.CPUID
    return Served.INVLPG if code == INVLPG_EXIT else Served.SVM


def vmexit(
    engine: cython.p_void, quick: QuickPtr, code: uint32_t, info_1: uint64_t, info_2: uint64_t, at_entry: cython.bint, served: cython.int
) -> cython.bint:
    """#VMEXIT to L1; False: it is left to the loop."""
    left: Left
    svm: SvmPtr = quick.svm
    if svm.v_intr & (V_IRQ | V_MASKING) or svm.host.rflags & Rflags.TF or not is_vmcb(quick, svm.vmcb) or not look(engine, quick):
        return False
    memset(cython.address(left), 0, cython.sizeof(Left))
    left.code, left.info_1, left.info_2, left.at_entry = code, info_1, info_2, at_entry
    take_registers(quick, cython.address(quick.registers))
    svm.owner, svm.store = quick, store_physical
    quick.l1_is_lost = not leave_l2(svm, cython.address(quick.registers), cython.address(left), 0)
    switch(quick)
    quick.reflected[min(code, cython.cast(uint32_t, REFLECTED - 1))] += 1
    came_to(quick, served)
    return True
