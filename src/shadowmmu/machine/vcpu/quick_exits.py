# SPDX-License-Identifier: GPL-2.0-only
"""The exits that one CPU serves in its hook (`quick_hook`): what they came to, and what the loop has to know of them."""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t, uintptr_t
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.state import Hpa
from cython.cimports.shadowmmu.engine.face.outside import raise_no_root
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.machine.cpu.registers import state_of
from cython.cimports.shadowmmu.machine.cpu.stop_request import RequestPtr
from cython.cimports.shadowmmu.machine.cpu.svm_entry import EntryPtr
from cython.cimports.shadowmmu.machine.devices.console import Console
from cython.cimports.shadowmmu.machine.devices.uart import SerialPort
from cython.cimports.shadowmmu.machine.emulator.code_places import CodePlaces
from cython.cimports.shadowmmu.machine.memory.guest_tables import GuestTables
from cython.cimports.shadowmmu.machine.memory.nested_tables import NestedTables
from cython.cimports.shadowmmu.machine.memory.shadow_tables import ShadowTables
from cython.cimports.shadowmmu.machine.memory.translations import Translations
from cython.cimports.shadowmmu.machine.vcpu.code_pages import CodePages
from cython.cimports.shadowmmu.machine.vcpu.quick_audit import QuickAudit
from cython.cimports.shadowmmu.machine.vcpu.quick_delivery import on_translated
from cython.cimports.shadowmmu.machine.vcpu.quick_devices import QuickDevices
from cython.cimports.shadowmmu.machine.vcpu.quick_entry import address_bits
from cython.cimports.shadowmmu.machine.vcpu.quick_hook import come_nearer, on_exit, on_syscall
from cython.cimports.shadowmmu.machine.vcpu.quick_ports import on_in, on_out
from cython.cimports.shadowmmu.machine.vcpu.quick_state import (
    NO_DEADLINE,
    NOTED,
    OUTCOMES,
    REFLECTED,
    NotedPtr,
    Walk,
    context_t,
    reg_t,
    slow_in_t,
    slow_out_t,
    slow_syscall_t,
    slow_t,
    stop_t,
    translate_t,
)

FOREVER = (1 << 64) - 1
"""No number of instructions."""


@cython.final
@cython.cclass
class QuickExits:
    """Of the CPU that runs the guest of `vcpu`.

    svm           what AMD-V keeps of it
    code          pages that a CPU of the machine may have translated code from
    places        instructions that have been decoded: whoever decodes one teaches it
    translations  those that the CPU keeps, as far as it delivers events
    """

    def __init__(self, vcpu: Vcpu, code: CodePages) -> None:
        self.vcpu = vcpu
        self.code = code
        self.tables = ShadowTables(vcpu)
        self.guest_tables = GuestTables(vcpu)
        self.nested_tables = NestedTables(vcpu)
        self.places = CodePlaces()
        self.translations = Translations()
        self.quick.vcpu = vcpu.vcpu
        self.quick.places = cython.address(self.places.places)
        self.quick.tlb = cython.address(self.translations.tlb)
        self.quick.code = cython.address(code.marks)
        self.quick.owner = cython.cast(cython.p_void, vcpu)
        self.quick.tables = cython.cast(cython.p_void, self.tables)
        self.quick.nested_tables = cython.cast(cython.p_void, self.nested_tables)
        self.quick.guest_tables = cython.cast(cython.p_void, self.guest_tables)
        self.quick.result, self.quick.deadline = NOT_SERVED, NO_DEADLINE

    def attach(self, places: object):
        """`seam.Places`: what the hook reads and calls."""
        quick: QuickPtr = cython.address(self.quick)
        quick.save = cython.cast(context_t, cython.cast(uintptr_t, places.save))
        quick.restore = cython.cast(context_t, cython.cast(uintptr_t, places.restore))
        quick.context = cython.cast(cython.p_void, cython.cast(uintptr_t, places.context))
        quick.gpr = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.gpr))
        quick.rip = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.rip))
        quick.mode = cython.cast(cython.pointer(uint8_t), cython.cast(uintptr_t, places.mode))
        quick.segments = cython.cast(cython.pointer(uint8_t), cython.cast(uintptr_t, places.segments))
        quick.cr3 = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.cr3))
        quick.debug = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.debug))
        quick.kernel_gs_base = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.kernel_gs_base))
        quick.entry = cython.cast(EntryPtr, cython.cast(uintptr_t, places.entry))
        quick.translate = cython.cast(translate_t, cython.cast(uintptr_t, places.translate))
        quick.error_code = cython.cast(cython.pointer(uint32_t), cython.cast(uintptr_t, places.error_code))
        quick.address = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.address))
        quick.executed = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.executed))
        quick.request = cython.cast(RequestPtr, cython.cast(uintptr_t, places.request))
        quick.reg_read = cython.cast(reg_t, cython.cast(uintptr_t, places.reg_read))
        quick.reg_write = cython.cast(reg_t, cython.cast(uintptr_t, places.reg_write))
        quick.flags_register, quick.root_register = places.flags_register, places.root_register
        quick.code_register = places.code_register
        quick.stub, quick.delivers = places.stub, places.modes_known
        quick.stop = cython.cast(stop_t, cython.cast(uintptr_t, places.stop))
        quick.slow = cython.cast(slow_t, cython.cast(uintptr_t, places.slow))
        quick.slow_syscall = cython.cast(slow_syscall_t, cython.cast(uintptr_t, places.slow_syscall))
        quick.slow_in = cython.cast(slow_in_t, cython.cast(uintptr_t, places.slow_in))
        quick.slow_out = cython.cast(slow_out_t, cython.cast(uintptr_t, places.slow_out))

    def know(self, processor: object):
        """What AMD-V keeps of the vCPU, its CPUID, and the devices that it reaches: before the first run."""
        self.leaves, self.svm = processor.cpuid.leaves, processor.svm
        self.quick.leaves = cython.address(self.leaves.leaves)
        self.quick.svm = cython.address(self.svm.svm)
        self.devices = QuickDevices(processor)
        self.quick.is_pc = processor.apic is not None
        self.quick.devices = cython.cast(cython.p_void, self.devices)

    def reach(self, ports: object, serial: SerialPort, console: Console):
        """The I/O port space, the serial port in it, and where the guest prints: before the first run."""
        self.devices.ports = ports
        self.serial, self.console = serial, console
        self.quick.serial = cython.address(serial.port)
        self.quick.text = cython.address(console.text)

    def watch(self, audit: QuickAudit):
        """After each exit that is served."""
        self.audit = audit
        self.quick.audit = cython.cast(cython.p_void, audit)

    def prepare(self):
        """For the next run. Until its end its local APIC is not turned on or off."""
        self.quick.apic_on = self.devices.apic is None or self.devices.apic.enabled
        self.quick.wrap = address_bits(cython.address(self.quick.entry.controls))

    def take_state(self):
        """With what the guest is to be entered, if that was left to the next run. Raises what a device or the audit has raised."""
        self.devices.check()
        if self.audit is not None:
            self.audit.check()
        if not self.quick.to_enter:
            return None
        self.quick.to_enter = False
        return state_of(cython.address(self.quick.registers))

    def begin(
        self,
        left: uint64_t,
        slice: uint64_t,
        turn_end: uint64_t,
        deadline: uint64_t,
        ticks: uint64_t,
        exits: uint64_t,
        now: uint64_t,
        alone: cython.bint,
        waits: cython.bint,
    ):
        """Serve up to `left` exits. The CPU stops when it has executed `slice` instructions since the last one, at `turn_end`, and
        at `deadline`, which comes `ticks` nearer with each exit; FOREVER: there is none. The machine has had so many `exits`, its clock
        says `now`. `alone`: no other vCPU waits for its turn; `waits`: an interrupt may wait for this one."""
        quick: QuickPtr = cython.address(self.quick)
        quick.apart, quick.alone, quick.waits = now - quick.executed[0] - quick.served * ticks, alone, waits
        quick.left, quick.slice, quick.turn_end, quick.deadline, quick.ticks = left, slice, turn_end, deadline, ticks
        memcpy(self.told, quick.outcomes, cython.sizeof(self.told))
        memcpy(self.told_interrupts, quick.interrupts, cython.sizeof(self.told_interrupts))
        memcpy(self.told_reflected, quick.reflected, cython.sizeof(self.told_reflected))
        quick.first = exits - quick.served

    def spend(self, ticks: uint64_t):
        """So many ticks passed while the CPU runs: from the next exit on the deadline is nearer by them."""
        self.quick.apart += ticks
        come_nearer(cython.address(self.quick), ticks)

    def pause(self):
        """Serve no more in this run."""
        self.quick.left = 0

    def end(self):
        """No more. What was served since `begin`, by what it came to."""
        self.quick.left = 0
        return tuple([self.quick.outcomes[i] - self.told[i] for i in range(OUTCOMES)])

    def interrupts(self):
        """Of these the software interrupts, by vector."""
        now: cython.pointer(uint64_t) = self.quick.interrupts
        told: cython.pointer(uint64_t) = self.told_interrupts
        return {vector: now[vector] - told[vector] for vector in range(256) if now[vector] != told[vector]}

    def reflected(self):
        """Exits of L2 that L1 has had since `begin`, by exit code."""
        now: cython.pointer(uint64_t) = self.quick.reflected
        told: cython.pointer(uint64_t) = self.told_reflected
        return {(0x400 if i == 0x100 else i): now[i] - told[i] for i in range(REFLECTED) if now[i] != told[i]}

    @property
    def l1_is_lost(self):
        """Its CR3 has become illegal while L2 ran."""
        return bool(self.quick.l1_is_lost)

    def faults(self):
        """The last page faults that were given to the guest: (exits before, error code, address, RIP, base, CPL, bits)."""
        end: int = self.quick.faults
        return [self.noted(number % NOTED) for number in range(max(0, end - NOTED), end)]

    @cython.cfunc
    def noted(self, number: cython.int) -> object:
        one: NotedPtr = cython.address(self.quick.noted[number])
        return one.at, one.error_code, one.address, one.rip, one.base, one.cpl, one.bits

    @property
    def met_alignment(self):
        """The CPU has met code that is to check alignment, and has stopped before it."""
        return bool(self.quick.met_alignment)

    def forget_alignment(self):
        """It runs no more, and what was translated of it is gone."""
        self.quick.met_alignment = False

    @property
    def exits(self):
        """Of the machine, those that were served in this run included."""
        return self.quick.first + self.quick.served

    @property
    def served(self):
        """Exits so far."""
        return self.quick.served

    @property
    def ported(self):
        """Accesses to ports so far, of those that were done without Python."""
        return self.quick.ported

    @property
    def last(self):
        """Instructions that were executed when the last one was served."""
        return self.quick.last

    def outcome(self, gva: uint64_t, code: uint64_t):
        """Of a fault that the hook has not served to its end: what the MMU said there, or says now."""
        result: cython.int = self.quick.result
        self.quick.result = NOT_SERVED
        return self.vcpu.page_fault(gva, code) if result == NOT_SERVED else self.vcpu.outcome(gva, result)

    def gva_to_gpa(self, gva: uint64_t, access: uint64_t):
        """`Vcpu.gva_to_gpa`, which the hook may have done for this exit."""
        quick: QuickPtr = cython.address(self.quick)
        done: cython.pointer(Walk) = cython.address(quick.walks[quick.taken])
        if quick.taken >= quick.walked or done.gva != gva or done.access != access:
            quick.walked = quick.taken = 0
            return self.vcpu.gva_to_gpa(gva, access)
        quick.taken += 1
        if done.gpa == Hpa.INVALID_PAGE:
            self.vcpu.vcpu.exception = done.exception
            return None
        return done.gpa

    def enter(self):
        """`Vcpu.enter`, which the hook may have tried behind an exit."""
        result: cython.int = self.quick.entered
        self.quick.entered = 0
        if result:
            raise_no_root(self.vcpu.vcpu, result)
        return self.vcpu.enter()

    @property
    def hook(self):
        """Address of the hook, a C function."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_exit))

    @property
    def syscall_hook(self):
        """That of SYSCALL."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_syscall))

    @property
    def in_hook(self):
        """That of IN."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_in))

    @property
    def out_hook(self):
        """That of OUT."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_out))

    @property
    def translated_hook(self):
        """Address of another hook, for code that the CPU translates."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_translated))

    def may_be_code(self, hpa: uint64_t, size: uint64_t):
        """The CPU may have translated code from this host memory."""
        return self.code.may_hold(hpa, size)

    @property
    def data(self):
        """Address of what the hook is to be given."""
        return cython.cast(uintptr_t, cython.address(self.quick))
