# SPDX-License-Identifier: GPL-2.0-only
"""Devices in memory, for an access that is done in the CPU's hook: those that the loop has, which are Python.

Nobody above the hook would see what one raises: it is kept until the run has ended.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.machine.cpu.stop_request import want_stop

ALL = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)


@cython.final
@cython.cclass
class QuickDevices:
    """`mmio`: the bus of one vCPU; `apic`: its local APIC, or None."""

    def __init__(self, mmio: object, apic: object) -> None:
        self.mmio, self.apic, self.raised = mmio, apic, None

    def check(self):
        """Raises what a device has raised since the last time."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


def load_device(quick: QuickPtr, gpa: uint64_t, size: cython.int) -> uint64_t:
    with cython.gil:
        devices: QuickDevices = cython.cast(QuickDevices, quick.devices)
        try:
            return devices.mmio.read(gpa, size)
        except BaseException as error:
            give_up(quick, error)
            return 0


def store_device(quick: QuickPtr, gpa: uint64_t, value: uint64_t, size: cython.int) -> cython.void:
    """If something waits for the vCPU by that, it stops before its next instruction."""
    with cython.gil:
        devices: QuickDevices = cython.cast(QuickDevices, quick.devices)
        try:
            devices.mmio.write(gpa, size, value & ALL >> 64 - 8 * size)
            if devices.apic is not None and devices.apic.attention:
                want_stop(quick.request)
        except BaseException as error:
            give_up(quick, error)


@cython.cfunc
def give_up(quick: QuickPtr, error: BaseException):
    devices: QuickDevices = cython.cast(QuickDevices, quick.devices)
    devices.raised = error
    want_stop(quick.request)
