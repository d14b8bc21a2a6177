# SPDX-License-Identifier: GPL-2.0-only
"""L2: entry by VMRUN, exit by #VMEXIT, as the loop does them: by `vcpu.svm_switch`, and what the machine keeps beside.

Sources: APM vol. 2 sections 15.5 to 15.9, 15.16, 15.20, 15.25.

What VMRUN saves of L1 stays in the processor: the format of the host save area is the processor's own affair, and so
L1 cannot change it. L1 and L2 share an ASID of the hardware, so every switch flushes, as KVM does; whatever
TLB_CONTROL and a new ASID ask for is part of that.

The manual is followed where Linux 6.1 is not exact: VMRUN without paging is none of KVM's (#UD), L2's own VMLOAD takes an
L1 physical address there, and a nested fault met by the emulator is always one on the final address.
"""

from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import State
from shadowmmu.machine.vcpu import svm_switch, vmcb
from shadowmmu.machine.vcpu.pending import Origin
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.svm_state import SvmState


def recalc_intercepts(p: Processor) -> None:
    """What the CPU has to intercept; the guest's being ready, too, if an interrupt waits for that."""
    window = p.waits_for_window or (p.nested is not None and p.nested.has_interrupt(p.task_priority))
    p.cpu.set_intercepts(p.svm.intercepts(window))


def take_interrupt(p: Processor, nested: SvmState) -> Event:
    """L1's virtual interrupt for L2, which is no longer pending."""
    vector = nested.take_interrupt()
    recalc_intercepts(p)
    return Event(vector, external=True)


def vmrun(p: Processor, host: State, gpa: int, page: bytes) -> None:
    """VMRUN with the VMCB `page` at `gpa`; `host` is L1's state behind the instruction."""
    entered, state = svm_switch.vmrun(p.svm, host, page, gpa, p.memory, p.task_priority)
    if not entered:
        recalc_intercepts(p)
        p.complete(state)
        return
    if p.svm.masks_interrupts:
        p.task_priority = p.svm.l2_priority
    recalc_intercepts(p)
    p.cpu.set_state(state)
    event = vmcb.injected_event(p.svm.event_inj, state.rip)
    if event is not None:
        p.queue(event, Origin.VMRUN)


def vmexit(p: Processor, code: int, info_1: int = 0, info_2: int = 0, interrupted: Event | None = None, *, at_entry: bool = False) -> None:
    """#VMEXIT: L2's state and the reason go to L1's VMCB, L1 goes on behind its VMRUN.

    `interrupted` is the event that was being delivered. `at_entry`: KVM does it on the way into L2.
    """
    p.reflected[code] += 1
    p.watched.forget()
    p.witness.leaves_l2(code, info_1, info_2)
    event = 0 if interrupted is None else vmcb.event_info(interrupted)
    legal, state = svm_switch.vmexit(p.svm, p.cpu.state(), (code, info_1, info_2, event), at_entry, p.memory, p.task_priority)
    if p.svm.masks_interrupts:
        p.task_priority = p.svm.l1_priority
    recalc_intercepts(p)
    p.complete(state)
    p.witness.left_l2()
    if not legal:
        p.lose_l1()
