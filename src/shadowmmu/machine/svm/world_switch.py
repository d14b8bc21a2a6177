# SPDX-License-Identifier: GPL-2.0-only
"""L2: entry by VMRUN, exit by #VMEXIT. Sources: APM vol. 2 sections 15.5 to 15.9, 15.16, 15.20, 15.25.

What VMRUN saves of L1 stays in the processor: the format of the host save area is the processor's own affair, and so
L1 cannot change it. L1 and L2 share an ASID of the hardware, so every switch flushes, as KVM does; whatever
TLB_CONTROL and a new ASID ask for is part of that.

The manual is followed where Linux 6.1 is not exact: VMRUN without paging is none of KVM's (#UD), L2's own VMLOAD takes an
L1 physical address there, and a nested fault met by the emulator is always one on the final address.
"""

from shadowmmu.engine.face.types import GuestMemoryError
from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import MASK32, MASK64, Reg, Seg, State
from shadowmmu.machine.svm.vmcb_check import is_legal
from shadowmmu.machine.vcpu import vmcb
from shadowmmu.machine.vcpu.nested_state import NestedState
from shadowmmu.machine.vcpu.pending import Origin
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.vmcb import Control, Save
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.msr import PAT
from shadowmmu.x86.vmcb import VMCB_SIZE, Intercept1, SvmExit, Vmcb

_NO_BREAKPOINTS = 0x400  # DR7
_HANDLED_APART = Intercept1.INTR | Intercept1.NMI | Intercept1.SMI | Intercept1.INIT | Intercept1.VINTR | Intercept1.CR0_SELECTIVE
"""What L1 may ask for and the CPU is not told: what comes from outside the machine brings itself, and CR0 is intercepted in any case."""
_EXIT_FIELDS = slice(int(Vmcb.V_INTR), int(Vmcb.N_CR3))
_SAVE_AREA = slice(int(Vmcb.ES), int(Vmcb.G_PAT) + 8)


def recalc_intercepts(p: Processor) -> None:
    """What the CPU has to intercept: the machine's own, and while L2 runs what L1 asked for."""
    nested, intercepts = p.nested, p.intercepts
    if nested is not None:
        asked = nested.control.intercepts
        intercepts |= asked._replace(exceptions=0, first=asked.first & ~_HANDLED_APART)
    own = Intercept1.IRET if p.nmi_masked else 0
    if p.waits_for_window or (nested is not None and nested.has_interrupt(p.task_priority)):
        own |= Intercept1.VINTR
    p.cpu.set_intercepts(intercepts._replace(first=intercepts.first | own))


def take_interrupt(p: Processor, nested: NestedState) -> Event:
    """L1's virtual interrupt for L2, which is no longer pending."""
    vector = nested.take_interrupt()
    recalc_intercepts(p)
    return Event(vector, external=True)


# --- entry


def vmrun(p: Processor, host: State, gpa: int, page: bytes) -> None:
    """VMRUN with the VMCB `page` at `gpa`; `host` is L1's state behind the instruction."""
    control, save = vmcb.read_control(page), vmcb.read_save(page)
    nested = NestedState(gpa, control, host, cr3=p.vcpu.cr3, pat=p.msrs[PAT], task_priority=p.task_priority, tsc_offset=p.msrs.tsc_offset)
    if not is_legal(control, save, p.vcpu) or not _load_mmu(p, control, save):
        _write_exit(p, nested, SvmExit.INVALID, 0, 0, 0, None)
        _resume_l1(p, nested, host.gpr)
        return
    p.nested, p.gif = nested, True
    _load_l2(p, nested, save)
    recalc_intercepts(p)
    p.cpu.set_state(_l2_state(control, save, host))
    event = vmcb.injected_event(control.event_inj, save.rip)
    if event is not None:
        p.queue(event, Origin.VMRUN)


def _load_mmu(p: Processor, control: Control, save: Save) -> bool:
    """The MMU's part: False if L2's CR3 or PDPTEs are illegal, or KVM could not read L1's MSR permission map; then L1 is back."""
    active = save.efer & Efer.LME and save.cr0 & Cr0.PG
    efer = save.efer & ~Efer.LMA | (Efer.LMA if active else 0)
    ncr3 = control.ncr3 if control.nested_paging else None
    if p.vcpu.nested_vmrun(save.cr0 | Cr0.ET, save.cr3, save.cr4, efer, ncr3) and _has_msr_map(p, control):
        return True
    p.vcpu.nested_vmexit()
    return False


def _has_msr_map(p: Processor, control: Control) -> bool:
    """Its first page, where the registers are that KVM lets L2 have."""
    if not control.intercepts.first & Intercept1.MSR:
        return True
    try:
        return bool(p.vcpu.vm.read_guest(control.msrpm_base, 1))
    except GuestMemoryError:
        return False


def _load_l2(p: Processor, nested: NestedState, save: Save) -> None:
    """Registers that are neither in `State` nor the MMU's."""
    p.vcpu.cr2 = save.cr2
    p.msrs.tsc_offset += nested.control.tsc_offset
    if nested.control.nested_paging:
        p.msrs.set_pat(save.g_pat)
    if nested.masks_interrupts:
        p.task_priority = nested.control.v_intr & 0xF


def _load_l1(p: Processor, nested: NestedState) -> None:
    """Undo that, but for CR2."""
    p.msrs.tsc_offset = nested.tsc_offset
    p.msrs.set_pat(nested.pat)
    if nested.masks_interrupts:
        p.task_priority = nested.task_priority


def _l2_state(control: Control, save: Save, host: State) -> State:
    """L2's registers: VMRUN loads some, the others stay L1's."""
    gpr = list(host.gpr)
    gpr[Reg.RAX], gpr[Reg.RSP] = save.rax, save.rsp
    state = State(gpr, save.rip, save.rflags & MASK32 | Rflags.FIXED, host.system, interrupt_shadow=control.interrupt_shadow)
    state.set_segments({Seg.ES: save.es, Seg.CS: save.cs, Seg.SS: save.ss, Seg.DS: save.ds})
    cpl = 0 if not save.cr0 & Cr0.PE else 3 if save.rflags & Rflags.VM else save.cpl
    state.system = state.system._replace(gdtr=save.gdtr, idtr=save.idtr, cpl=cpl, dr6=save.dr6, dr7=save.dr7)
    return state


# --- exit


def vmexit(p: Processor, code: int, info_1: int = 0, info_2: int = 0, interrupted: Event | None = None, *, at_entry: bool = False) -> None:
    """#VMEXIT: L2's state and the reason go to L1's VMCB, L1 goes on behind its VMRUN.

    `interrupted` is the event that was being delivered. `at_entry`: KVM does it on the way into L2.
    """
    nested = p.nested
    assert nested is not None
    p.reflected[code] += 1
    p.witness.leaves_l2(code, info_1, info_2)
    state = p.cpu.state()
    event = 0 if interrupted is None else vmcb.event_info(interrupted)
    _write_exit(p, nested, code, info_1, info_2, event, state)
    p.nested = None
    _load_l1(p, nested)
    legal = p.vcpu.nested_vmexit(at_entry=at_entry)
    _resume_l1(p, nested, state.gpr, state)
    p.witness.left_l2()
    if not legal:
        p.stop(f"the CR3 of L1, {nested.cr3:#x}, has become illegal while L2 ran", at_entry=True)


def _write_exit(p: Processor, nested: NestedState, code: int, info_1: int, info_2: int, event: int, state: State | None) -> None:
    """The fields of the VMCB that the CPU writes. `state` None: L2 was not entered, and its state stays as it is."""
    try:
        page = bytearray(p.vcpu.vm.read_guest(nested.vmcb, VMCB_SIZE))
    except GuestMemoryError:
        page = bytearray(VMCB_SIZE)  # its memory was taken away while L2 ran; what is written goes nowhere
    for at, value in ((Vmcb.EXIT_CODE, code), (Vmcb.EXIT_INFO_1, info_1), (Vmcb.EXIT_INFO_2, info_2), (Vmcb.EXIT_INT_INFO, event)):
        vmcb.put_u64(page, at, value & MASK64)
    vmcb.put_u64(page, Vmcb.EVENT_INJ, 0)  # taken
    if state is not None:
        vmcb.put_u64(page, Vmcb.INTERRUPT_SHADOW, state.interrupt_shadow)
        vmcb.put_u64(page, Vmcb.V_INTR, nested.v_intr(p.task_priority))
        vmcb.write_save(page, _l2_save(p, nested, state))
        p.memory.store_physical(nested.vmcb + _SAVE_AREA.start, bytes(page[_SAVE_AREA]))
    p.memory.store_physical(nested.vmcb + _EXIT_FIELDS.start, bytes(page[_EXIT_FIELDS]))


def _l2_save(p: Processor, nested: NestedState, state: State) -> Save:
    system, vcpu = state.system, p.vcpu
    segments = system.segments
    return Save(
        segments[Seg.ES],
        segments[Seg.CS],
        segments[Seg.SS],
        segments[Seg.DS],
        system.gdtr,
        system.idtr,
        system.cpl,
        vcpu.efer,
        vcpu.cr4,
        vcpu.cr3,
        vcpu.cr0,
        system.dr7,
        system.dr6,
        state.rflags,
        state.rip,
        state.gpr[Reg.RSP],
        state.gpr[Reg.RAX],
        vcpu.cr2,
        p.msrs[PAT],
    )


def _resume_l1(p: Processor, nested: NestedState, gpr: list[int], l2: State | None = None) -> None:
    """L1 behind its VMRUN, GIF clear; what VMRUN does not switch is as L2 left it."""
    p.gif = False
    host = nested.host
    system = host.system if l2 is None else l2.system
    state = State(list(gpr), host.rip, host.rflags & ~Rflags.VM, system)
    state.gpr[Reg.RAX], state.gpr[Reg.RSP] = host.gpr[Reg.RAX], host.gpr[Reg.RSP]
    state.set_segments({which: host.system.segments[which] for which in (Seg.ES, Seg.CS, Seg.SS, Seg.DS)})
    state.system = state.system._replace(gdtr=host.system.gdtr, idtr=host.system.idtr, cpl=0, dr7=_NO_BREAKPOINTS)
    recalc_intercepts(p)
    p.complete(state)
