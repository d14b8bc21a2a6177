# SPDX-License-Identifier: GPL-2.0-only
"""The delivery of an event on a `State` and a `GuestMemory`."""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.machine.cpu.registers import segment_of, take_state
from cython.cimports.shadowmmu.machine.vcpu.delivery import deliver_event
from cython.cimports.shadowmmu.machine.vcpu.delivery_state import Failure, do_stores
from cython.cimports.shadowmmu.x86.control import Cr4, Rflags

from shadowmmu.machine.memory.linear_memory import GuestFault


def translate_by(owner: cython.p_void, gva: uint64_t, access: uint64_t, place: cython.pointer(uint64_t)) -> cython.bint:
    with cython.gil:
        attempt: Attempt = cython.cast(Attempt, owner)
        try:
            place[0] = attempt.memory.translate(gva, access)
        except BaseException as raised:  # for `run`
            attempt.raised = raised
            return False
        return True


def load_by(owner: cython.p_void, place: uint64_t, size: uint64_t, into: cython.p_void) -> cython.bint:
    with cython.gil:
        attempt: Attempt = cython.cast(Attempt, owner)
        try:
            loaded: bytes = attempt.memory.load(((place, size),)).to_bytes(size, "little")
        except BaseException as raised:
            attempt.raised = raised
            return False
        memcpy(into, PyBytes_AS_STRING(loaded), size)
        return True


def store_by(owner: cython.p_void, place: uint64_t, size: uint64_t, data: cython.p_void) -> cython.bint:
    with cython.gil:
        attempt: Attempt = cython.cast(Attempt, owner)
        value: uint64_t = 0
        memcpy(cython.address(value), data, size)
        try:
            attempt.memory.store(((place, size),), value)
        except BaseException as raised:
            attempt.raised = raised
            return False
        return True


@cython.final
@cython.cclass
class Attempt:
    """`real`, `long_mode`: the mode that the guest believes in."""

    def __init__(self, state: object, event: object, memory: object, real: cython.bint, long_mode: cython.bint) -> None:
        self.memory, self.state = memory, state
        take_state(cython.address(self.d.registers), state)
        self.take_event(event)
        self.d.real, self.d.long_mode = real, long_mode
        self.d.v86 = (self.d.registers.rflags & Rflags.VM) != 0 and not real
        self.d.memory.owner = cython.cast(cython.p_void, self)
        self.d.memory.translate, self.d.memory.load, self.d.memory.store = translate_by, load_by, store_by
        self.d.memory.mask = memory.mask
        self.d.memory.canonical_bits = 57 if long_mode and memory.vcpu.cr4 & Cr4.LA57 else 48

    @cython.cfunc
    def take_event(self, event: object) -> cython.void:
        self.d.event.vector, self.d.event.software, self.d.event.external = event.vector, event.software, event.external
        self.d.event.pushes_error_code, self.d.event.error_code = event.pushes_error_code, event.error_code
        self.d.event.has_next_rip = event.next_rip is not None
        self.d.event.next_rip = event.next_rip or 0

    def run(self):
        """The state at the handler's first instruction, or the selector of a task gate. Raises what the guest or its memory does."""
        if not deliver_event(cython.address(self.d)) or not do_stores(cython.address(self.d)):
            return self.failed()
        return self.state_after()

    @cython.cfunc
    def state_after(self) -> object:
        after: object = self.state.copy()
        before: tuple = after.system.segments
        segments: tuple = tuple([segment_of(cython.address(self.d.registers.segments[i]), before[i]) for i in range(6)])
        after.system = after.system._replace(segments=segments, cpl=self.d.registers.cpl)
        after.gpr = [self.d.registers.gpr[i] for i in range(16)]
        after.rip, after.rflags = self.d.registers.rip, self.d.registers.rflags
        return after

    @cython.cfunc
    def failed(self) -> object:
        if self.d.failure == Failure.TASK_GATE:
            return self.d.code
        if self.d.failure == Failure.RAISES:
            raise GuestFault(self.d.vector, self.d.code)
        raise self.raised
