# SPDX-License-Identifier: GPL-2.0-only
"""Where a task switch by hardware meets the MMU: CR3 of the new task, and CR0.TS. What a task is, is in `vcpu.task`."""

from shadowmmu.machine.memory.linear_memory import Event, GuestFault, GuestMemory
from shadowmmu.machine.seam import Exit, Segment, State
from shadowmmu.machine.vcpu.deliver import TaskSwitch
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.task import enter_by_gate, load_task, push_error_code, read_task
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.vectors import TS


def finish_task_switch(p: Processor, _exit: Exit) -> None:
    """JMP, CALL or IRET has saved the old task, and TR is that of the new one; the CPU had the wrong CR3 from there on."""
    state = p.capture()
    if p.nested is not None:
        raise TaskSwitch(f"a task switch by hardware near RIP {state.rip:#x} of L2 is not emulated")
    p.cpu.set_state(_resume(p, p.memory, state, state.system.tr, state.rflags & int(Rflags.NT)))


def switch_by_gate(p: Processor, memory: GuestMemory, state: State, selector: int, event: Event) -> State:
    """An event goes through a task gate. A fault in the new task is its own: it is raised there."""
    return_rip = state.rip if event.next_rip is None else event.next_rip
    tr = enter_by_gate(memory, state, selector, return_rip)
    state = _resume(p, memory, state, tr, int(Rflags.NT))
    if event.pushes_error_code:
        push_error_code(memory, state, event.error_code)
    return state


def _resume(p: Processor, memory: GuestMemory, state: State, tr: Segment, nested: int) -> State:
    task, vcpu = read_task(memory, tr), p.vcpu
    if task.cr3 is not None and vcpu.cr0 & Cr0.PG and not vcpu.set_cr3(task.cr3):
        raise GuestFault(TS, tr.selector & 0xFFFC)
    vcpu.set_cr0(vcpu.cr0 | Cr0.TS)
    return load_task(memory, state, task, tr, nested)
