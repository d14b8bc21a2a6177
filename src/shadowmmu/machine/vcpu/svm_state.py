# SPDX-License-Identifier: GPL-2.0-only
"""What AMD-V keeps of one vCPU: L1's global interrupt flag, the run of an L2 (KVM: struct svm_nested_state), and the registers that
VMRUN, VMLOAD and #VMEXIT switch and that are neither in `seam.State` nor the MMU's.

`svm_switch` is what happens to it.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.machine.cpu.vmcb_page import InterceptedPtr

from shadowmmu.machine.seam import Intercepts

HANDLED_APART = cython.declare(uint32_t, 0x3F)
"""INTR, NMI, SMI, INIT, VINTR and CR0_SELECTIVE: what L1 may ask for and the CPU is not told. What comes from outside the machine brings
itself, and CR0 is intercepted in any case."""
ALL_DEBUG_REGISTERS = cython.declare(uint32_t, 0xFF)
GENERAL_DETECT = cython.declare(uint64_t, 1 << 13)
"""GD, of DR7."""
IRET = cython.declare(uint32_t, 1 << 20)
VINTR = cython.declare(uint32_t, 1 << 4)
V_IGNORE_TPR = cython.declare(uint64_t, 1 << 20)


def is_wanted(svm: SvmPtr, code: uint64_t) -> cython.bint:
    """L1 intercepts this exit code, of those that have a bit of their own (APM vol. 2 appendix C)."""
    asked: InterceptedPtr = cython.address(svm.control.asked)
    registers: uint32_t[4] = [asked.cr_read, asked.cr_write, asked.dr_read, asked.dr_write]
    if code < 0x40:
        return registers[code >> 4] >> (code & 15) & 1
    if code < 0x60:
        return asked.exceptions >> (code - 0x40) & 1
    if code < 0x80:
        return asked.first >> (code - 0x60) & 1
    return code < 0xA0 and asked.second >> (code - 0x80) & 1


def v_intr_now(svm: SvmPtr, priority: uint8_t) -> uint64_t:
    """V_INTR with L2's task priority, if it has one of its own."""
    return (svm.v_intr & ~cython.cast(uint64_t, V_TPR)) | priority if svm.v_intr & V_MASKING else svm.v_intr


def has_data_breakpoints(dr7: uint64_t) -> cython.bint:
    """One is on, of writes or of all accesses. SDM vol. 3 section 17.2.4."""
    i: cython.int
    found: cython.bint = False
    for i in range(4):
        found |= dr7 >> 2 * i & 3 and dr7 >> (16 + 4 * i) & 1
    return found


def note_debug_control(svm: SvmPtr, dr7: uint64_t) -> cython.void:
    """The guest that runs has another DR7 now."""
    svm.watches_data = has_data_breakpoints(dr7)
    svm.guards_debug = dr7 & GENERAL_DETECT != 0


def find_intercepts(svm: SvmPtr, window: cython.bint) -> Intercepted:
    """What the CPU has to intercept: the machine's own, and while L2 runs what L1 asked for; `window`: the guest's being ready for an
    interrupt, too."""
    found: Intercepted = svm.own
    if svm.runs:
        asked: InterceptedPtr = cython.address(svm.control.asked)
        found.cr_read |= asked.cr_read
        found.cr_write |= asked.cr_write
        found.dr_read |= asked.dr_read
        found.dr_write |= asked.dr_write
        found.first |= asked.first & ~HANDLED_APART
        found.second |= asked.second
    if svm.guards_debug:
        found.dr_read |= ALL_DEBUG_REGISTERS
        found.dr_write |= ALL_DEBUG_REGISTERS
    if svm.nmi_masked:
        found.first |= IRET
    if window:
        found.first |= VINTR
    return found


@cython.final
@cython.cclass
class SvmState:
    """Of `vcpu`. `own`: what the machine intercepts; the rest is what its CPUID offers, and the bits of a base."""

    def __init__(self, vcpu: Vcpu, own: object, cr4_offered: uint64_t, efer_offered: uint64_t, base_bits: uint8_t, pat: uint64_t) -> None:
        self.svm.vcpu = vcpu.vcpu
        self.svm.gif = True
        asked: InterceptedPtr = cython.address(self.svm.own)
        asked.cr_read, asked.cr_write, asked.dr_read, asked.dr_write, asked.exceptions, asked.first, asked.second = own
        self.svm.cr4_offered, self.svm.efer_offered, self.svm.base_bits, self.svm.pat = cr4_offered, efer_offered, base_bits, pat

    @property
    def gif(self):
        return bool(self.svm.gif)

    @gif.setter
    def gif(self, value: cython.bint):
        self.svm.gif = value

    @property
    def nmi_masked(self):
        """NMIs wait for an IRET."""
        return bool(self.svm.nmi_masked)

    @nmi_masked.setter
    def nmi_masked(self, value: cython.bint):
        self.svm.nmi_masked = value

    @property
    def watches_data(self):
        """DR7 has breakpoints on data, or had some when it was noted last."""
        return bool(self.svm.watches_data)

    def see_debug_control(self, dr7: uint64_t):
        """The guest that runs has another DR7 now."""
        note_debug_control(cython.address(self.svm), dr7)

    @property
    def runs(self):
        """L2 does. What follows is of this run."""
        return bool(self.svm.runs)

    def forget(self):
        """An INIT has ended it."""
        self.svm.runs = False

    # --- registers

    @property
    def pat(self):
        return self.svm.pat

    @pat.setter
    def pat(self, value: uint64_t):
        self.svm.pat = value

    @property
    def lstar(self):
        return self.svm.lstar

    @lstar.setter
    def lstar(self, value: uint64_t):
        self.svm.lstar = value

    @property
    def cstar(self):
        return self.svm.cstar

    @cstar.setter
    def cstar(self, value: uint64_t):
        self.svm.cstar = value

    @property
    def sfmask(self):
        return self.svm.sfmask

    @sfmask.setter
    def sfmask(self, value: uint64_t):
        self.svm.sfmask = value

    @property
    def tsc_offset(self):
        return self.svm.tsc_offset

    @tsc_offset.setter
    def tsc_offset(self, value: object):
        self.svm.tsc_offset = cython.cast(uint64_t, value & 0xFFFFFFFFFFFFFFFF)

    # --- this run of L2

    def wants(self, code: uint64_t):
        """L1 intercepts this exit code, of those that have a bit of their own."""
        return bool(is_wanted(cython.address(self.svm), code))

    @property
    def asked(self):
        """What L1 intercepts."""
        now: InterceptedPtr = cython.address(self.svm.control.asked)
        return Intercepts(now.cr_read, now.cr_write, now.dr_read, now.dr_write, now.exceptions, now.first, now.second)

    @property
    def iopm_base(self):
        """L1 physical address of its I/O permission map."""
        return self.svm.control.iopm_base

    @property
    def msrpm_base(self):
        """That of its MSR permission map."""
        return self.svm.control.msrpm_base

    @property
    def event_inj(self):
        """The event that VMRUN has asked for."""
        return self.svm.control.event_inj

    @property
    def l1_rflags(self):
        return self.svm.host.rflags

    @property
    def l1_cr3(self):
        return self.svm.l1_cr3

    @property
    def l1_priority(self):
        """L1's task priority."""
        return self.svm.l1_priority

    @property
    def l2_priority(self):
        """The task priority that L2 begins with, if it has one of its own."""
        return self.svm.control.v_intr & 0xF

    @property
    def masks_interrupts(self):
        """V_INTR_MASKING: L2 has a task priority of its own."""
        return bool(self.svm.v_intr & V_MASKING)

    def has_interrupt(self, priority: uint8_t):
        """L1 has a virtual interrupt for L2 that its task priority lets through. APM vol. 2 section 15.21.4."""
        now: uint64_t = v_intr_now(cython.address(self.svm), priority)
        return bool(now & V_IRQ and (now & V_IGNORE_TPR or (now >> 16 & 0xF) > (now & V_TPR)))

    def take_interrupt(self):
        """The vector of the virtual interrupt, which is no longer pending."""
        self.svm.v_intr &= ~cython.cast(uint64_t, V_IRQ)
        return self.svm.v_intr >> 32 & 0xFF

    def intercepts(self, window: cython.bint):
        """What the CPU has to intercept."""
        found: Intercepted = find_intercepts(cython.address(self.svm), window)
        return Intercepts(found.cr_read, found.cr_write, found.dr_read, found.dr_write, found.exceptions, found.first, found.second)
