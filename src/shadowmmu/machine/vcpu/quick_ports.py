# SPDX-License-Identifier: GPL-2.0-only
"""I/O ports in the CPU's hooks of IN and OUT, where neither the guest's privilege nor L1 has a say: `devices.port_bus`.

Port accesses are no exits, so this goes on also while somebody is to see each exit. The serial port tells its status, and what the guest
prints is kept, without Python; other devices are those that the loop has.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.shadowmmu.machine.cpu.stop_request import want_stop
from cython.cimports.shadowmmu.machine.devices.console import put
from cython.cimports.shadowmmu.machine.devices.uart import REGISTERS, look_at, only_sends
from cython.cimports.shadowmmu.machine.vcpu.quick_devices import load_port, store_port
from cython.cimports.shadowmmu.machine.vcpu.quick_hook import come_nearer
from cython.cimports.shadowmmu.machine.vcpu.quick_state import CPL

IOIO = cython.declare(uint32_t, 1 << 27)


def on_in(engine: cython.p_void, port: uint32_t, size: cython.int, data: cython.p_void) -> uint32_t:
    """The CPU's hook for IN: what is read."""
    quick: QuickPtr = cython.cast(QuickPtr, data)
    value: uint8_t = 0
    if not is_open(engine, quick):
        return quick.slow_in(engine, port, size, cython.NULL)
    if size == 1 and port - SERIAL_PORT < REGISTERS and look_at(quick.serial, port - SERIAL_PORT, cython.address(value)):
        spend(quick)
        return value
    return load_port(quick, port, size)


def on_out(engine: cython.p_void, port: uint32_t, size: cython.int, value: uint32_t, data: cython.p_void) -> cython.void:
    """That for OUT."""
    quick: QuickPtr = cython.cast(QuickPtr, data)
    if not is_open(engine, quick):
        quick.slow_out(engine, port, size, value, cython.NULL)
    elif size == 1 and print_at(quick, port, value):
        spend(quick)
    else:
        store_port(quick, port, size, value)


def is_open(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """In ring 0, and not intercepted. Behind an access that was refused the CPU is about to stop."""
    code: uint64_t = 0
    if quick.request.wanted or quick.entry.intercepts.first & IOIO:
        return False
    quick.reg_read(engine, quick.code_register, cython.address(code))
    return not code & CPL


def spend(quick: QuickPtr) -> cython.void:
    """`Clock.spend`: the access takes as long as an exit, and a timer may be due by that."""
    quick.ported += 1
    quick.apart += quick.ticks
    come_nearer(quick, quick.ticks)
    if quick.deadline <= quick.executed[0]:
        want_stop(quick.request)


def print_at(quick: QuickPtr, port: uint32_t, value: uint32_t) -> cython.bint:
    """A character; False: there is more to do."""
    if port == DEBUG_PORT:
        return put(quick.text, cython.cast(uint8_t, value))
    if port != SERIAL_PORT or not only_sends(quick.serial, 0) or not put(quick.text, cython.cast(uint8_t, value)):
        return False
    quick.serial.sent = True
    return True
