# SPDX-License-Identifier: GPL-2.0-only
"""Devices, for an access that is done in the CPU's hook: those that the loop has, which are Python.

If something waits for the vCPU by an access, it stops before its next instruction. Nobody above the hook would see what a device raises:
it is kept until the run has ended.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.machine.cpu.registers import RAX
from cython.cimports.shadowmmu.machine.cpu.stop_request import want_stop
from cython.cimports.shadowmmu.machine.vcpu.quick_state import CPL, has_long_code

from shadowmmu.machine.vcpu.hypercalls import answer

ALL = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)


@cython.final
@cython.cclass
class QuickDevices:
    """As `processor` has them, and the I/O port space, once there is one."""

    def __init__(self, processor: object) -> None:
        self.processor, self.mmio, self.apic, self.msrs = processor, processor.memory.mmio, processor.apic, processor.msrs
        self.raised = None

    def check(self):
        """Raises what a device has raised since the last time."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


def load_device(quick: QuickPtr, gpa: uint64_t, size: cython.int) -> uint64_t:
    """In memory."""
    with cython.gil:
        try:
            return cython.cast(QuickDevices, quick.devices).mmio.read(gpa, size)
        except BaseException as error:
            give_up(quick, error)
            return 0


def store_device(quick: QuickPtr, gpa: uint64_t, value: uint64_t, size: cython.int) -> cython.void:
    with cython.gil:
        try:
            cython.cast(QuickDevices, quick.devices).mmio.write(gpa, size, value & ALL >> 64 - 8 * size)
            notice(quick)
        except BaseException as error:
            give_up(quick, error)


def load_port(quick: QuickPtr, port: uint32_t, size: cython.int) -> uint32_t:
    with cython.gil:
        try:
            return cython.cast(QuickDevices, quick.devices).ports.read(port, size)
        except BaseException as error:
            give_up(quick, error)
            return 0


def store_port(quick: QuickPtr, port: uint32_t, size: cython.int, value: uint32_t) -> cython.void:
    with cython.gil:
        try:
            cython.cast(QuickDevices, quick.devices).ports.write(port, size, value)
        except BaseException as error:
            give_up(quick, error)


def task_priority(quick: QuickPtr) -> uint64_t:
    """CR8."""
    with cython.gil:
        return cython.cast(QuickDevices, quick.devices).processor.task_priority


def set_task_priority(quick: QuickPtr, value: uint64_t) -> cython.void:
    with cython.gil:
        cython.cast(QuickDevices, quick.devices).processor.task_priority = value
        notice(quick)


def call_host(quick: QuickPtr) -> cython.void:
    """A hypercall, on a PC."""
    with cython.gil:
        try:
            gpr: list = [quick.gpr[i] for i in range(16)]
            apic: object = cython.cast(QuickDevices, quick.devices).apic
            quick.gpr[RAX] = answer(apic, gpr, quick.mode[0] & CPL, long=has_long_code(quick))
            notice(quick)
        except BaseException as error:
            give_up(quick, error)


def notice(quick: QuickPtr) -> cython.void:
    """What waits for the vCPU may be ready by an access."""
    if quick.is_pc and cython.cast(QuickDevices, quick.devices).apic.attention:
        want_stop(quick.request)


def give_up(quick: QuickPtr, error: object) -> cython.void:
    cython.cast(QuickDevices, quick.devices).raised = error
    want_stop(quick.request)
