# SPDX-License-Identifier: GPL-2.0-only
"""VMRUN and #VMEXIT, VMLOAD and VMSAVE: between L1 and L2, and back. Sources: APM vol. 2 sections 15.5, 15.6 and 15.21.

The MMU's part is the engine's. Here is all else, on registers (`cpu.registers`) and L1's VMCB in guest memory; the loop does it by the
functions at the end, and the CPU's hook by the same below them (`quick_svm`).
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr, p_u8
from cython.cimports.shadowmmu.engine.cpu.legal import NestedPaging
from cython.cimports.shadowmmu.engine.cpu.nested import nested_enter, nested_exit, nested_exit_at_entry
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest
from cython.cimports.shadowmmu.machine.cpu.registers import FS, GS, RAX, RSP, RegisterPtr, state_of, take_state
from cython.cimports.shadowmmu.machine.cpu.vmcb_page import get_segment, get_u64, put_hidden, put_segment, put_u64
from cython.cimports.shadowmmu.machine.vcpu.l2_control import is_legal, read_control, read_save, write_save
from cython.cimports.shadowmmu.machine.vcpu.svm_state import ControlPtr, note_debug_control, v_intr_now
from cython.cimports.shadowmmu.x86.control import Cr0, Efer, Rflags
from cython.cimports.shadowmmu.x86.vmcb_layout import Vmcb

VMCB_SIZE = cython.declare(cython.int, 4096)
INVALID = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)
NO_BREAKPOINTS = cython.declare(uint64_t, 0x400)  # DR7
MSR = cython.declare(uint32_t, 1 << 28)
LOW = cython.declare(uint64_t, 0xFFFFFFFF)

# --- entry


def enter_l2(svm: SvmPtr, registers: RegistersPtr, page: p_u8, gpa: uint64_t, priority: uint8_t) -> cython.bint:
    """VMRUN with the VMCB `page` at `gpa`. `registers` are L1's behind the instruction, and then those to go on with: L2's, or False:
    L1's own, as its VMCB is illegal."""
    save: Save
    left: Left
    svm.vmcb, svm.host, svm.l1_cr3 = gpa, registers[0], svm.vcpu.cr3
    svm.l1_pat, svm.l1_priority, svm.l1_tsc_offset = svm.pat, priority, svm.tsc_offset
    read_control(page, cython.address(svm.control))
    svm.v_intr = svm.control.v_intr
    read_save(page, cython.address(save))
    if not is_legal(svm, cython.address(save)) or not load_mmu(svm, cython.address(save)):
        memset(cython.address(left), 0, cython.sizeof(Left))
        left.code = INVALID
        write_exit(svm, cython.NULL, cython.address(left), priority)
        resume_l1(svm, registers)
        return False
    svm.runs = svm.gif = True
    svm.vcpu.cr2 = save.cr2
    svm.tsc_offset += svm.control.tsc_offset
    if svm.control.nested_paging:
        svm.pat = save.g_pat
    load_l2(svm, cython.address(save), registers)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_mmu(svm: SvmPtr, save: SavePtr) -> cython.bint:
    """The MMU's part: False if L2's CR3 or PDPTEs are illegal, or KVM could not read L1's MSR permission map; then L1 is back."""
    control: ControlPtr = cython.address(svm.control)
    efer: uint64_t = save.efer & ~cython.cast(uint64_t, Efer.LMA)
    if save.efer & Efer.LME and save.cr0 & Cr0.PG:
        efer |= Efer.LMA
    paging: NestedPaging = NestedPaging.NESTED_NPT if control.nested_paging else NestedPaging.NESTED_NONE
    root: uint64_t = control.ncr3 if control.nested_paging else 0
    if nested_enter(svm.vcpu, save.cr0 | Cr0.ET, save.cr3, save.cr4, efer, paging, root, False, 3) and has_msr_map(svm):
        return True
    nested_exit(svm.vcpu)
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def has_msr_map(svm: SvmPtr) -> cython.bint:
    """Its first page, where the registers are that KVM lets L2 have."""
    byte: uint8_t
    return not svm.control.asked.first & MSR or read_guest(svm.vcpu.kvm, 0, svm.control.msrpm_base, cython.address(byte), 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_l2(svm: SvmPtr, save: SavePtr, registers: RegistersPtr) -> cython.void:
    """L2's registers: VMRUN loads some, the others stay L1's."""
    i: cython.int
    for i in range(4):
        registers.segments[i] = save.segments[i]
    registers.gdtr, registers.idtr = save.gdtr, save.idtr
    registers.gpr[RAX], registers.gpr[RSP], registers.rip = save.rax, save.rsp, save.rip
    registers.rflags = (save.rflags & LOW) | Rflags.FIXED
    registers.dr6, registers.dr7, registers.interrupt_shadow = save.dr6, save.dr7, svm.control.interrupt_shadow
    note_debug_control(svm, save.dr7)
    registers.cpl = save.cpl
    if not save.cr0 & Cr0.PE:
        registers.cpl = 0
    elif save.rflags & Rflags.VM:
        registers.cpl = 3


# --- exit


def leave_l2(svm: SvmPtr, registers: RegistersPtr, left: LeftPtr, priority: uint8_t) -> cython.bint:
    """#VMEXIT: L2's `registers` and the reason go to L1's VMCB; then they are L1's behind its VMRUN. False: its CR3 is illegal by now."""
    write_exit(svm, registers, left, priority)
    svm.runs = False
    svm.tsc_offset, svm.pat = svm.l1_tsc_offset, svm.l1_pat
    legal: cython.bint = nested_exit_at_entry(svm.vcpu) if left.at_entry else nested_exit(svm.vcpu)
    resume_l1(svm, registers)
    return legal


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_exit(svm: SvmPtr, registers: RegistersPtr, left: LeftPtr, priority: uint8_t) -> cython.void:
    """The fields of the VMCB that the CPU writes. `registers` NULL: L2 was not entered, and its state stays as it is."""
    page: uint8_t[4096]
    if not read_guest(svm.vcpu.kvm, 0, svm.vmcb, page, VMCB_SIZE):
        memset(page, 0, VMCB_SIZE)  # its memory was taken away while L2 ran; what is written goes nowhere
    put_u64(page, Vmcb.EXIT_CODE, left.code)
    put_u64(page, Vmcb.EXIT_INFO_1, left.info_1)
    put_u64(page, Vmcb.EXIT_INFO_2, left.info_2)
    put_u64(page, Vmcb.EXIT_INT_INFO, left.event)
    put_u64(page, Vmcb.EVENT_INJ, 0)  # taken
    if registers != cython.NULL:
        put_u64(page, Vmcb.INTERRUPT_SHADOW, registers.interrupt_shadow)
        put_u64(page, Vmcb.V_INTR, v_intr_now(svm, priority))
        save_l2(svm, registers, page)
        svm.store(svm.owner, svm.vmcb + Vmcb.ES, Vmcb.G_PAT + 8 - Vmcb.ES, page + Vmcb.ES)
    svm.store(svm.owner, svm.vmcb + Vmcb.V_INTR, Vmcb.N_CR3 - Vmcb.V_INTR, page + Vmcb.V_INTR)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def save_l2(svm: SvmPtr, registers: RegistersPtr, page: p_u8) -> cython.void:
    save: Save
    i: cython.int
    vcpu: KvmVcpuPtr = svm.vcpu
    for i in range(4):
        save.segments[i] = registers.segments[i]
    save.gdtr, save.idtr, save.cpl = registers.gdtr, registers.idtr, registers.cpl
    save.efer, save.cr4, save.cr3, save.cr0, save.cr2 = vcpu.efer, vcpu.cr4, vcpu.cr3, vcpu.cr0, vcpu.cr2
    save.dr7, save.dr6, save.rflags, save.rip = registers.dr7, registers.dr6, registers.rflags, registers.rip
    save.rsp, save.rax, save.g_pat = registers.gpr[RSP], registers.gpr[RAX], svm.pat
    write_save(page, cython.address(save))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def resume_l1(svm: SvmPtr, registers: RegistersPtr) -> cython.void:
    """L1 behind its VMRUN, GIF clear; what VMRUN does not switch is as L2 left it."""
    i: cython.int
    host: RegistersPtr = cython.address(svm.host)
    for i in range(4):
        registers.segments[i] = host.segments[i]
    registers.gdtr, registers.idtr, registers.cpl = host.gdtr, host.idtr, 0
    registers.gpr[RAX], registers.gpr[RSP], registers.rip = host.gpr[RAX], host.gpr[RSP], host.rip
    registers.rflags, registers.dr7 = host.rflags & ~cython.cast(uint64_t, Rflags.VM | Rflags.RF), NO_BREAKPOINTS
    note_debug_control(svm, NO_BREAKPOINTS)
    registers.interrupt_shadow = svm.gif = False


# --- what VMRUN does not switch


def load_hidden(svm: SvmPtr, registers: RegistersPtr, page: p_u8) -> cython.void:
    """VMLOAD. Bases become canonical. APM vol. 2 section 15.5.2."""
    load_segment(svm, page, Vmcb.FS, cython.address(registers.segments[FS]))
    load_segment(svm, page, Vmcb.GS, cython.address(registers.segments[GS]))
    load_segment(svm, page, Vmcb.LDTR, cython.address(registers.ldtr))
    load_segment(svm, page, Vmcb.TR, cython.address(registers.tr))
    registers.kernel_gs_base = as_base(svm, get_u64(page, Vmcb.KERNEL_GS_BASE))
    registers.star, registers.sysenter_cs = get_u64(page, Vmcb.STAR), get_u64(page, Vmcb.SYSENTER_CS) & LOW
    registers.sysenter_esp, registers.sysenter_eip = get_u64(page, Vmcb.SYSENTER_ESP), get_u64(page, Vmcb.SYSENTER_EIP)
    svm.lstar, svm.cstar, svm.sfmask = get_u64(page, Vmcb.LSTAR), get_u64(page, Vmcb.CSTAR), get_u64(page, Vmcb.SFMASK) & LOW


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_segment(svm: SvmPtr, page: p_u8, at: cython.int, into: RegisterPtr) -> cython.void:
    get_segment(page, at, into)
    into.base = as_base(svm, into.base)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def as_base(svm: SvmPtr, value: uint64_t) -> uint64_t:
    """`GuestMemory.as_base`."""
    sign: uint64_t = cython.cast(uint64_t, 1) << (svm.base_bits - 1)
    return (value & (sign - 1)) - (value & sign)


def save_hidden(svm: SvmPtr, registers: RegistersPtr, page: p_u8) -> cython.void:
    """VMSAVE."""
    put_segment(page, Vmcb.FS, cython.address(registers.segments[FS]))
    put_segment(page, Vmcb.GS, cython.address(registers.segments[GS]))
    put_segment(page, Vmcb.LDTR, cython.address(registers.ldtr))
    put_segment(page, Vmcb.TR, cython.address(registers.tr))
    put_u64(page, Vmcb.LSTAR, svm.lstar)
    put_u64(page, Vmcb.CSTAR, svm.cstar)
    put_u64(page, Vmcb.SFMASK, svm.sfmask)
    put_hidden(page, registers)


# --- for the loop


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_by(owner: cython.p_void, gpa: uint64_t, size: uint64_t, data: cython.p_void) -> cython.void:
    with cython.gil:
        stores: Stores = cython.cast(Stores, owner)
        try:
            stores.memory.store_physical(gpa, PyBytes_FromStringAndSize(cython.cast(cython.p_char, data), size))
        except BaseException as raised:  # for `done`
            stores.raised = raised


@cython.final
@cython.cclass
class Stores:
    """By physical address, into `memory`."""

    def __init__(self, svm: SvmState, memory: object) -> None:
        self.memory = memory
        svm.svm.owner, svm.svm.store = cython.cast(cython.p_void, self), store_by

    def done(self):
        """Raises what memory has."""
        if self.raised is not None:
            raise self.raised


def vmrun(svm: SvmState, state: object, page: bytes, gpa: uint64_t, memory: object, priority: uint8_t):
    """Whether L2 is entered with the VMCB `page` at `gpa`, and the state to go on with; `state` is L1's behind VMRUN, and `priority` its
    task priority."""
    registers: Registers
    stores: Stores = Stores(svm, memory)
    take_state(cython.address(registers), state)
    entered: cython.bint = enter_l2(
        cython.address(svm.svm), cython.address(registers), cython.cast(p_u8, PyBytes_AS_STRING(page)), gpa, priority
    )
    stores.done()
    return bool(entered), state_of(cython.address(registers))


def vmexit(svm: SvmState, state: object, reason: tuple, at_entry: cython.bint, memory: object, priority: uint8_t):
    """Whether L1's CR3 is still legal, and its state. `state` is L2's; `reason`: exit code, EXITINFO1 and 2, EXITINTINFO."""
    registers: Registers
    left: Left
    stores: Stores = Stores(svm, memory)
    take_state(cython.address(registers), state)
    left.code, left.info_1, left.info_2, left.event = reason
    left.at_entry = at_entry
    legal: cython.bint = leave_l2(cython.address(svm.svm), cython.address(registers), cython.address(left), priority)
    stores.done()
    return bool(legal), state_of(cython.address(registers))


def vmload(svm: SvmState, state: object, page: bytes):
    """The state with what VMLOAD loads from the VMCB `page`."""
    registers: Registers
    take_state(cython.address(registers), state)
    load_hidden(cython.address(svm.svm), cython.address(registers), cython.cast(p_u8, PyBytes_AS_STRING(page)))
    return state_of(cython.address(registers))


def vmsave(svm: SvmState, state: object, page: bytes):
    """The VMCB `page` with what VMSAVE saves."""
    registers: Registers
    after: bytes = PyBytes_FromStringAndSize(PyBytes_AS_STRING(page), VMCB_SIZE)
    take_state(cython.address(registers), state)
    save_hidden(cython.address(svm.svm), cython.address(registers), cython.cast(p_u8, PyBytes_AS_STRING(after)))
    return after
