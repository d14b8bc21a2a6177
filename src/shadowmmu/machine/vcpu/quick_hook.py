# SPDX-License-Identifier: GPL-2.0-only
"""Frequent exits are served within the CPU's hook, without Python, and the guest goes on from there.

What such an exit does is what the loop does with it, in the same order: the handler's work (`serve_fault`, `quick_instructions`,
`quick_msrs`, `quick_svm`, `quick_nested`), then the entry (`quick_entry`). Where there is more to do, the exit is left to the loop before
anything has changed, and what was found out is kept for the handler, which asks `QuickExits` for it: nothing is done twice.

A run with quick exits is the same as one without: exits, events, counters and virtual time. So they are off while somebody is
to see each exit, and where the loop would do more between two: a message from outside waits that may be taken there. The last exit
before a limit is left to the loop.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import PfRet
from cython.cimports.shadowmmu.engine.fault.fault import mmu_page_fault
from cython.cimports.shadowmmu.machine.cpu.stop_request import set_limit, settle
from cython.cimports.shadowmmu.machine.vcpu.quick_audit import audit_exit
from cython.cimports.shadowmmu.machine.vcpu.quick_delivery import deliver_fault
from cython.cimports.shadowmmu.machine.vcpu.quick_emulation import emulate
from cython.cimports.shadowmmu.machine.vcpu.quick_entry import finish, go_on, stop
from cython.cimports.shadowmmu.machine.vcpu.quick_instructions import serve_instruction
from cython.cimports.shadowmmu.machine.vcpu.quick_msrs import serve_msr
from cython.cimports.shadowmmu.machine.vcpu.quick_nested import serve_nested_fault
from cython.cimports.shadowmmu.machine.vcpu.quick_state import NO_DEADLINE, Served, came_to, is_of_rip
from cython.cimports.shadowmmu.machine.vcpu.quick_svm import (
    is_for_l1,
    is_its_own,
    is_svm,
    pass_on,
    pass_on_fault,
    serve_hypercall,
    serve_svm,
)
from cython.cimports.shadowmmu.machine.vcpu.quick_syscall import serve_syscall
from cython.cimports.shadowmmu.machine.vcpu.svm_state import is_wanted
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Rflags
from cython.cimports.shadowmmu.x86.pferr import Pferr
from cython.cimports.shadowmmu.x86.vmcb_layout import MSR_EXIT, NESTED_PAGE_FAULT_EXIT, PAGE_FAULT_EXIT, VMMCALL_EXIT


def on_exit(engine: cython.p_void, number: uint32_t, data: cython.p_void) -> cython.void:
    """The CPU's hook for all exits: if it returns without a stop, the guest goes on."""
    quick: QuickPtr = cython.cast(QuickPtr, data)
    quick.walked = quick.taken = 0
    quick.anew = quick.reload = False
    if quick.left and number >= HOOKED and serve(engine, quick, number - HOOKED):
        if quick.audit != cython.NULL:
            audit_exit(quick)
        go_on(engine, quick)
        count_exit(engine, quick)
        finish(engine, quick)
    else:
        quick.slow(engine, number, cython.NULL)


def on_syscall(engine: cython.p_void, data: cython.p_void) -> cython.void:
    """Its hook for SYSCALL, which is no exit of AMD-V."""
    quick: QuickPtr = cython.cast(QuickPtr, data)
    quick.walked = quick.taken = 0
    quick.anew = quick.reload = False
    if quick.left and serve_syscall(engine, quick):
        if quick.audit != cython.NULL:
            audit_exit(quick)
        go_on(engine, quick)
        count_exit(engine, quick)
    else:
        quick.slow_syscall(engine, cython.NULL)


def serve(engine: cython.p_void, quick: QuickPtr, code: uint32_t) -> cython.bint:
    """False: the loop goes on with what is left to do. So it does if the CPU has switched tasks by itself, with a CR3 that is not its;
    with nested paging CR3 is the guest's own."""
    quick.save(engine, quick.context)
    settle(quick.request)
    if quick.vcpu.kvm.tdp:
        quick.vcpu.cr3 = quick.entry.controls.cr3 = quick.cr3[0]
    elif quick.cr3[0] != quick.entry.controls.cr3:
        return False
    if quick.svm.runs and is_for_l1(quick, code):
        return pass_on(engine, quick, code)
    if code == PAGE_FAULT_EXIT and quick.vcpu.kvm.tdp:
        return serve_own_fault(engine, quick)
    if code == PAGE_FAULT_EXIT:
        return may_be_served(quick, quick.error_code[0]) and serve_fault(engine, quick)
    if code == NESTED_PAGE_FAULT_EXIT:
        return serve_nested_fault(engine, quick)
    if code == MSR_EXIT:
        return serve_msr(engine, quick)
    if code == VMMCALL_EXIT:
        return serve_hypercall(engine, quick)
    if is_svm(code):
        return not quick.waits and serve_svm(engine, quick, code)
    return serve_instruction(engine, quick, code)


def may_be_served(quick: QuickPtr, code: uint32_t) -> cython.bint:
    """Not what the loop looks at twice: a fetch from the next page, which may come too early, a descriptor table read with SMAP on."""
    if code & Pferr.FETCH and not is_of_rip(quick):
        return False
    return not (quick.vcpu.cr4 & Cr4.SMAP and quick.mode[0] & 3 == 3 and not code & Pferr.USER)


def serve_fault(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """Have the MMU handle the fault."""
    if quick.vcpu.cr4 & Cr4.SMAP:
        look_from(engine, quick)
    if quick.error_code[0] & Pferr.RSVD:
        quick.error_code[0] |= Pferr.PRESENT  # which this processor forgets
    result: cython.int = mmu_page_fault(quick.vcpu, quick.address[0] & quick.wrap, quick.error_code[0])
    if result == PfRet.RET_PF_FIXED:
        came_to(quick, Served.FIXED)
        if takes_from_user(quick, quick.error_code[0]):
            quick.reload = True  # which drops every translation
    elif result == PfRet.RET_PF_SPURIOUS:
        came_to(quick, Served.SPURIOUS)
    elif result == PfRet.RET_PF_INJECT and inject(engine, quick):
        pass
    elif result != PfRet.RET_PF_EMULATE or not emulate(engine, quick, quick.address[0] & quick.wrap, Served.EMULATED):
        quick.result = result
        return False
    return True


def inject(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """The fault is the guest's, or of an L2 that of L1."""
    if quick.svm.runs and is_wanted(quick.svm, PAGE_FAULT_EXIT):
        return pass_on_fault(engine, quick)
    if not deliver_fault(engine, quick, quick.vcpu.exception.error_code, quick.vcpu.exception.address):
        return False
    came_to(quick, Served.INJECTED)
    return True


def serve_own_fault(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """A #PF of the guest's own tables, with nested paging, which no L1 takes."""
    code: uint32_t = quick.error_code[0]
    if not is_its_own(quick, code) or not deliver_fault(engine, quick, code, quick.address[0] & quick.wrap):
        return False
    came_to(quick, Served.OWN_INJECTED)
    return True


def takes_from_user(quick: QuickPtr, code: uint32_t) -> cython.bint:
    """`Processor.takes_from_user`."""
    kind: uint32_t = code & (Pferr.PRESENT | Pferr.WRITE | Pferr.USER)
    return kind == (Pferr.PRESENT | Pferr.WRITE) and not quick.vcpu.cr0 & Cr0.WP


def look_from(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """Make the MMU's walk that of the guest's registers now: EFLAGS.AC suspends SMAP."""
    flags: uint64_t = 0
    quick.reg_read(engine, quick.flags_register, cython.address(flags))
    quick.vcpu.ac = (flags & Rflags.AC) != 0


def count_exit(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """As between two runs: the timer has come nearer by the exit, the slice begins anew. Where the CPU is to stop at once, it does so
    before it looks for the next instruction, of which the fetch may be an exit."""
    quick.left -= 1
    quick.last = quick.executed[0]
    come_nearer(quick, quick.ticks)
    set_limit(quick.request, min(quick.last + quick.slice, quick.turn_end, quick.deadline))
    if quick.request.limit <= quick.last or quick.request.wanted:
        stop(engine, quick)


def come_nearer(quick: QuickPtr, ticks: uint64_t) -> cython.void:
    """Time has passed beside the CPU's own."""
    if quick.deadline != NO_DEADLINE:
        quick.deadline -= min(ticks, quick.deadline)
