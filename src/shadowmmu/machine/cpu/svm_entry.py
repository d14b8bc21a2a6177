# SPDX-License-Identifier: GPL-2.0-only
"""The way into the guest: what VMRUN is to load goes into the machine's own VMCB, and the processor begins in host mode, at a stub.

The loop goes by it before a run, and the CPU's hook in the midst of one: a guest whose segments, control registers or nested tables
have changed is entered anew.
"""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.stdint import uint32_t, uint64_t, uintptr_t
from cython.cimports.libc.string import memcmp, memcpy
from cython.cimports.shadowmmu.engine.arena.state import p_u8
from cython.cimports.shadowmmu.machine.cpu.registers import FS, RAX, RSP, RegisterPtr, segment_of, take_state
from cython.cimports.shadowmmu.machine.cpu.vmcb_page import get_u64, put_hidden, put_intercepts, put_segment, put_table, put_u8, put_u64
from cython.cimports.shadowmmu.x86.control import Efer
from cython.cimports.shadowmmu.x86.vmcb_layout import Vmcb

from shadowmmu.machine.seam import Controls, Intercepts

BREAKPOINTS = cython.declare(uint64_t, 0xFFFF00FF)  # of DR7
BREAKPOINTS_ON = cython.declare(uint64_t, 0xFF)
ALL_EXCEPTIONS = cython.declare(uint32_t, 0xFFFFFFFF)
DPL_3 = cython.declare(uint32_t, 3 << 5)


def write_vmcb(entry: EntryPtr, registers: RegistersPtr) -> cython.void:
    """Control area, and the guest state that VMLOAD and VMRUN load; other general registers go by `to_host`.

    All exceptions are intercepted: they come to the hook in any case, and so with the guest's state as it was.
    """
    page: p_u8 = entry.vmcb
    intercepted: Intercepted = entry.intercepts
    intercepted.exceptions = ALL_EXCEPTIONS
    put_intercepts(page, cython.address(intercepted))
    put_u64(page, Vmcb.INTERRUPT_SHADOW, registers.interrupt_shadow)
    put_u64(page, Vmcb.NESTED_PAGING, entry.controls.ncr3 != 0)
    put_u64(page, Vmcb.N_CR3, entry.controls.ncr3)
    put_segments(entry, registers)
    put_u8(page, Vmcb.CPL, registers.cpl)
    put_registers(page, cython.address(entry.controls), registers)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_registers(page: p_u8, controls: ControlsPtr, registers: RegistersPtr) -> cython.void:
    put_u64(page, Vmcb.EFER, controls.efer)
    put_u64(page, Vmcb.CR4, controls.cr4)
    put_u64(page, Vmcb.CR3, controls.cr3)
    put_u64(page, Vmcb.CR0, controls.cr0)
    put_u64(page, Vmcb.DR7, registers.dr7)
    put_u64(page, Vmcb.DR6, registers.dr6)
    put_u64(page, Vmcb.RFLAGS, registers.rflags)
    put_u64(page, Vmcb.RIP, registers.rip)
    put_u64(page, Vmcb.RSP, registers.gpr[RSP])
    put_u64(page, Vmcb.RAX, registers.gpr[RAX])
    put_hidden(page, registers)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def put_segments(entry: EntryPtr, registers: RegistersPtr) -> cython.void:
    """FS and GS with a DPL of 3 in long mode: from one of an inner ring this engine takes the base when it returns to an outer ring, a
    processor only the selector."""
    i: cython.int
    page: p_u8 = entry.vmcb
    for i in range(4):
        put_segment(page, Vmcb.ES + 16 * i, cython.address(registers.segments[i]))
    for i in range(2):
        entry.given[i] = entry.loaded[i] = registers.segments[FS + i]
        if entry.controls.efer & Efer.LMA:
            entry.loaded[i].attr |= DPL_3
        put_segment(page, Vmcb.FS + 16 * i, cython.address(entry.loaded[i]))
    put_segment(page, Vmcb.LDTR, cython.address(registers.ldtr))
    put_segment(page, Vmcb.TR, cython.address(registers.tr))
    put_table(page, Vmcb.GDTR, cython.address(registers.gdtr))
    put_table(page, Vmcb.IDTR, cython.address(registers.idtr))


def restore_given(entry: EntryPtr, number: cython.int, segment: RegisterPtr) -> cython.void:
    """FS or GS as it was given, if it is what was loaded."""
    i: cython.int = number - FS
    if i >= 0 and memcmp(segment, cython.address(entry.loaded[i]), cython.sizeof(entry.loaded[0])) == 0:
        segment[0] = entry.given[i]


def read_hidden(entry: EntryPtr, registers: RegistersPtr) -> cython.void:
    """What VMRUN's stub has loaded and no guest changes by itself."""
    registers.star = get_u64(entry.vmcb, Vmcb.STAR)
    registers.sysenter_cs = get_u64(entry.vmcb, Vmcb.SYSENTER_CS)
    registers.sysenter_esp = get_u64(entry.vmcb, Vmcb.SYSENTER_ESP)
    registers.sysenter_eip = get_u64(entry.vmcb, Vmcb.SYSENTER_EIP)


def to_host(engine: cython.p_void, entry: EntryPtr, gpr: cython.pointer(uint64_t), dr7: uint64_t) -> cython.void:
    """Host mode, ready to VMRUN, with the guest's general, FPU and debug registers. The context must have been read.

    VMRUN takes no breakpoints: if there are others than before, DR7 is loaded ahead of it.
    """
    changed: uint64_t = (entry.debug[1] ^ dr7) & BREAKPOINTS
    leads: cython.bint = changed and (entry.debug[1] | dr7) & BREAKPOINTS_ON
    memcpy(entry.context, entry.host, entry.head)
    memcpy(entry.gpr, gpr, 128)
    entry.gpr[RAX] = dr7 if leads else entry.vmcb_hpa
    entry.rip[0] = entry.lead if leads else entry.stub
    entry.efer[0] = entry.host_efer
    entry.restore(engine, entry.handle)
    entry.reg_write(engine, entry.root_register, cython.address(entry.host_root))  # drops every translation


def begin(entry: EntryPtr) -> uint64_t:
    """It is about to go on in host mode; where."""
    return entry.rip[0]


def enter_anew(engine: cython.p_void, entry: EntryPtr, registers: RegistersPtr) -> cython.void:
    """In the CPU's hook: it goes on with the guest as it is to be."""
    write_vmcb(entry, registers)
    to_host(engine, entry, registers.gpr, registers.dr7)
    begin(entry)


@cython.final
@cython.cclass
class SvmEntry:
    """`vmcb`: the address in this process of the VMCB at `vmcb_hpa`; `stub`: the linear address of VMLOAD and VMRUN, `lead`: that of
    loads of DR7 and RAX, which end there."""

    def __init__(self, vmcb: uintptr_t, vmcb_hpa: uint64_t, lead: uint64_t, stub: uint64_t) -> None:
        self.entry.vmcb = cython.cast(p_u8, vmcb)
        self.entry.vmcb_hpa, self.entry.lead, self.entry.stub = vmcb_hpa, lead, stub

    def attach(self, context: uintptr_t, host: bytes, host_efer: uint64_t, places: object) -> None:
        """The processor context lies at `context`, and was `host` in host mode; `places`: where things are (`seam.Places`)."""
        entry: EntryPtr = cython.address(self.entry)
        self.host = host
        entry.context, entry.host = cython.cast(p_u8, context), cython.cast(p_u8, PyBytes_AS_STRING(host))
        entry.handle = cython.cast(cython.p_void, cython.cast(uintptr_t, places.context))
        entry.gpr = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.gpr))
        entry.rip = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.rip))
        entry.debug = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.debug))
        entry.efer = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.efer))
        entry.head = cython.cast(uint64_t, places.head)
        entry.host_efer = host_efer
        entry.host_root = cython.cast(cython.pointer(uint64_t), entry.host + (cython.cast(uintptr_t, places.cr3) - context))[0]
        entry.restore = cython.cast(restore_t, cython.cast(uintptr_t, places.restore))
        entry.reg_write = cython.cast(write_t, cython.cast(uintptr_t, places.reg_write))
        entry.root_register = places.root_register

    @property
    def data(self):
        """Address of what compiled code is to be given."""
        return cython.cast(uintptr_t, cython.address(self.entry))

    @property
    def controls(self):
        """That the guest runs with, or is to."""
        return Controls(
            self.entry.controls.cr0, self.entry.controls.cr3, self.entry.controls.cr4, self.entry.controls.efer, self.entry.controls.ncr3
        )

    @controls.setter
    def controls(self, new: object):
        controls: ControlsPtr = cython.address(self.entry.controls)
        controls.cr0, controls.cr3, controls.cr4, controls.efer, controls.ncr3 = new

    @property
    def intercepts(self):
        """What leaves the guest."""
        now: Intercepted = self.entry.intercepts
        return Intercepts(now.cr_read, now.cr_write, now.dr_read, now.dr_write, now.exceptions, now.first, now.second)

    @intercepts.setter
    def intercepts(self, new: object):
        now: Intercepted
        now.cr_read, now.cr_write, now.dr_read, now.dr_write, now.exceptions, now.first, now.second = new
        self.entry.intercepts = now

    @property
    def hidden(self):
        """STAR and SYSENTER's registers, which no guest changes by itself."""
        registers: Registers
        read_hidden(cython.address(self.entry), cython.address(registers))
        return registers.star, registers.sysenter_cs, registers.sysenter_esp, registers.sysenter_eip

    def as_given(self, number: cython.int, segment: object):
        """A segment of the guest, as it was given."""
        found: Register
        found.selector, found.attr, found.limit, found.base = segment
        restore_given(cython.address(self.entry), number, cython.address(found))
        return segment_of(cython.address(found), segment)

    def write(self, state: object) -> None:
        """The state that the guest is to be entered with."""
        registers: Registers
        take_state(cython.address(registers), state)
        write_vmcb(cython.address(self.entry), cython.address(registers))

    def start(self):
        """It is about to run in host mode; from where."""
        return begin(cython.address(self.entry))

    def leave(self, engine: uintptr_t, gpr: object, dr7: uint64_t) -> None:
        """Host mode, with these general registers."""
        i: cython.int
        values: uint64_t[16]
        for i in range(16):
            values[i] = gpr[i]
        to_host(cython.cast(cython.p_void, engine), cython.address(self.entry), values, dr7)
