# SPDX-License-Identifier: GPL-2.0-only
"""`seam.State` as compiled code has it."""

import cython

from shadowmmu.machine.seam import Segment, State, System, Table


@cython.cfunc
def take_segment(into: RegisterPtr, segment: object):
    into.selector, into.attr, into.limit, into.base = segment


def take_state(into: RegistersPtr, state: object):
    i: cython.int
    system: object = state.system
    for i in range(16):
        into.gpr[i] = state.gpr[i]
    for i in range(6):
        take_segment(cython.address(into.segments[i]), system.segments[i])
    take_segment(cython.address(into.ldtr), system.ldtr)
    take_segment(cython.address(into.tr), system.tr)
    into.gdtr.base, into.gdtr.limit = system.gdtr
    into.idtr.base, into.idtr.limit = system.idtr
    into.rip, into.rflags, into.cpl, into.interrupt_shadow = state.rip, state.rflags, system.cpl, state.interrupt_shadow
    into.dr6, into.dr7, into.kernel_gs_base, into.star = system.dr6, system.dr7, system.kernel_gs_base, system.star
    into.sysenter_cs, into.sysenter_esp, into.sysenter_eip = system.sysenter_cs, system.sysenter_esp, system.sysenter_eip


def segment_of(register: RegisterPtr, before: object) -> object:
    """As a state has it, the same object as `before` if it is the same."""
    found: tuple = (register.selector, register.attr, register.limit, register.base)
    return before if found == before else Segment(*found)


def state_of(registers: RegistersPtr) -> object:
    system: object = System(
        tuple([segment_of(cython.address(registers.segments[i]), None) for i in range(6)]),
        segment_of(cython.address(registers.ldtr), None),
        segment_of(cython.address(registers.tr), None),
        Table(registers.gdtr.base, registers.gdtr.limit),
        Table(registers.idtr.base, registers.idtr.limit),
        registers.cpl,
        registers.dr6,
        registers.dr7,
        registers.kernel_gs_base,
        registers.star,
        registers.sysenter_cs,
        registers.sysenter_esp,
        registers.sysenter_eip,
    )
    gpr: list = [registers.gpr[i] for i in range(16)]
    return State(gpr, registers.rip, registers.rflags, system, interrupt_shadow=bool(registers.interrupt_shadow))
