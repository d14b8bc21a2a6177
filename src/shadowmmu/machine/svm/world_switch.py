"""L2: entry by VMRUN, exit by #VMEXIT. Sources: APM vol. 2 sections 15.5 to 15.9, 15.16, 15.20, 15.25.

What VMRUN saves of L1 stays in the processor: the format of the host save area is the processor's own affair, and so
L1 cannot change it. L1 and L2 share an ASID of the hardware, so every switch flushes, as KVM does; whatever
TLB_CONTROL and a new ASID ask for is part of that.

The manual is followed where Linux 6.1 is not exact: VMRUN without paging is none of KVM's (#UD), L2's own VMLOAD takes an
L1 physical address there, and a nested fault met by the emulator is always one on the final address.
"""

from typing import TYPE_CHECKING

from shadowmmu.engine.face.types import GuestMemoryError
from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import MASK32, MASK64, Intercepts, Reg, Seg, State
from shadowmmu.machine.svm import vmcb
from shadowmmu.machine.svm.vmcb import Control, Save
from shadowmmu.machine.svm.vmcb_check import is_legal
from shadowmmu.machine.vcpu.msr import PAT
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.vmcb import VMCB_SIZE, Intercept1, SvmExit, VIntr, Vmcb

if TYPE_CHECKING:
    from shadowmmu.machine.vcpu.processor import Processor

_NO_BREAKPOINTS = 0x400  # DR7
_HANDLED_APART = Intercept1.INTR | Intercept1.NMI | Intercept1.SMI | Intercept1.INIT | Intercept1.VINTR | Intercept1.CR0_SELECTIVE
"""What L1 may ask for and the CPU is not told: nothing comes from outside, and CR0 is intercepted in any case."""
_EXIT_FIELDS = slice(int(Vmcb.V_INTR), int(Vmcb.N_CR3))
_SAVE_AREA = slice(int(Vmcb.ES), int(Vmcb.G_PAT) + 8)


class Nested:
    """One run of L2.

    vmcb     L1 physical address of L1's VMCB
    control  what L1 asked for, as it was at VMRUN
    host     L1's registers behind VMRUN
    """

    def __init__(self, p: "Processor", gpa: int, control: Control, host: State) -> None:
        self.vmcb, self.control, self.host = gpa, control, host
        self._pat, self._task_priority, self._tsc_offset = p.msrs[PAT], p.task_priority, p.msrs.tsc_offset
        self._v_intr = control.v_intr

    def wants(self, code: int) -> bool:
        """L1 intercepts this exit code, of those that have a bit of their own."""
        asked = self.control.intercepts
        if code < SvmExit.EXCEPTION:
            return bool((asked.cr_read, asked.cr_write, asked.dr_read, asked.dr_write)[code >> 4] >> (code & 15) & 1)
        if code < SvmExit.INTR:
            return bool(asked.exceptions >> (code - SvmExit.EXCEPTION) & 1)
        return bool((asked.first | asked.second << 32) >> (code - SvmExit.INTR) & 1)

    @property
    def masks_interrupts(self) -> bool:
        """V_INTR_MASKING: L2 has a task priority of its own."""
        return bool(self._v_intr & VIntr.MASKING)

    def intercepts(self, p: "Processor") -> Intercepts:
        """What the CPU has to intercept while L2 runs."""
        asked = self.control.intercepts
        first = asked.first & ~_HANDLED_APART | (Intercept1.VINTR if self._has_interrupt(p) else 0)
        return p.intercepts | asked._replace(exceptions=0, first=first)

    def _has_interrupt(self, p: "Processor") -> bool:
        """L1 has a virtual interrupt for L2 that its task priority lets through. APM vol. 2 section 15.21.4."""
        v_intr = self.v_intr(p)
        priority = v_intr >> VIntr.PRIORITY_SHIFT & 0xF
        return bool(v_intr & VIntr.IRQ) and (bool(v_intr & VIntr.IGNORE_TPR) or priority > v_intr & VIntr.TPR)

    def take_interrupt(self, p: "Processor") -> Event:
        """The virtual interrupt, which is no longer pending."""
        self._v_intr &= ~VIntr.IRQ
        p.cpu.set_intercepts(self.intercepts(p))
        return Event(self._v_intr >> VIntr.VECTOR_SHIFT & 0xFF, external=True)

    def v_intr(self, p: "Processor") -> int:
        """The field as it is now."""
        return self._v_intr & ~VIntr.TPR | p.task_priority if self.masks_interrupts else self._v_intr

    def switch_to_l2(self, p: "Processor", save: Save) -> None:
        """Registers that are neither in `State` nor the MMU's."""
        p.vcpu.cr2 = save.cr2
        p.msrs.tsc_offset += self.control.tsc_offset
        if self.control.nested_paging:
            p.msrs.set_pat(save.g_pat)
        if self.masks_interrupts:
            p.task_priority = self._v_intr & 0xF

    def switch_to_l1(self, p: "Processor") -> None:
        """Undo that, but for CR2."""
        p.msrs.tsc_offset = self._tsc_offset
        p.msrs.set_pat(self._pat)
        if self.masks_interrupts:
            p.task_priority = self._task_priority


# --- entry


def vmrun(p: "Processor", host: State, gpa: int, page: bytes) -> None:
    """VMRUN with the VMCB `page` at `gpa`; `host` is L1's state behind the instruction."""
    control, save = vmcb.read_control(page), vmcb.read_save(page)
    nested = Nested(p, gpa, control, host)
    if not is_legal(control, save, p.vcpu) or not _load_mmu(p, control, save):
        _write_exit(p, nested, SvmExit.INVALID, 0, 0, 0, None)
        _resume_l1(p, nested, host.gpr)
        return
    p.nested, p.gif = nested, True
    nested.switch_to_l2(p, save)
    p.cpu.set_intercepts(nested.intercepts(p))
    p.cpu.set_state(_l2_state(control, save, host))
    event = vmcb.injected_event(control.event_inj, save.rip)
    if event is not None:
        p.deliver_from_vmcb(event)


def _load_mmu(p: "Processor", control: Control, save: Save) -> bool:
    """The MMU's part: False if L2's CR3 or PDPTEs are illegal; then L1 is back."""
    active = save.efer & Efer.LME and save.cr0 & Cr0.PG
    efer = save.efer & ~Efer.LMA | (Efer.LMA if active else 0)
    ncr3 = control.ncr3 if control.nested_paging else None
    if p.vcpu.nested_vmrun(save.cr0 | Cr0.ET, save.cr3, save.cr4, efer, ncr3):
        return True
    p.vcpu.nested_vmexit()
    return False


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


def vmexit(p: "Processor", code: int, info_1: int, info_2: int, interrupted: Event | None, at_entry: bool) -> None:
    """#VMEXIT: L2's state and the reason go to L1's VMCB, L1 goes on behind its VMRUN.

    `interrupted` is the event that was being delivered. `at_entry`: as `Vcpu.nested_vmexit` has it.
    """
    nested = p.nested
    assert nested is not None
    state = p.cpu.state()
    event = 0 if interrupted is None else vmcb.event_info(interrupted)
    _write_exit(p, nested, code, info_1, info_2, event, state)
    p.nested = None
    nested.switch_to_l1(p)
    if not p.vcpu.nested_vmexit(at_entry=at_entry):
        p.shut_down(f"the CR3 of L1, {p.vcpu.cr3:#x}, has become illegal while L2 ran")
    _resume_l1(p, nested, state.gpr, state)


def _write_exit(p: "Processor", nested: Nested, code: int, info_1: int, info_2: int, event: int, state: State | None) -> None:
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
        vmcb.put_u64(page, Vmcb.V_INTR, nested.v_intr(p))
        vmcb.write_save(page, _l2_save(p, nested, state))
        p.memory.store_physical(nested.vmcb + _SAVE_AREA.start, bytes(page[_SAVE_AREA]))
    p.memory.store_physical(nested.vmcb + _EXIT_FIELDS.start, bytes(page[_EXIT_FIELDS]))


def _l2_save(p: "Processor", nested: Nested, state: State) -> Save:
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


def _resume_l1(p: "Processor", nested: Nested, gpr: list[int], l2: State | None = None) -> None:
    """L1 behind its VMRUN, GIF clear; what VMRUN does not switch is as L2 left it."""
    p.gif = False
    host = nested.host
    system = host.system if l2 is None else l2.system
    state = State(list(gpr), host.rip, host.rflags & ~Rflags.VM, system)
    state.gpr[Reg.RAX], state.gpr[Reg.RSP] = host.gpr[Reg.RAX], host.gpr[Reg.RSP]
    state.set_segments({which: host.system.segments[which] for which in (Seg.ES, Seg.CS, Seg.SS, Seg.DS)})
    state.system = state.system._replace(gdtr=host.system.gdtr, idtr=host.system.idtr, cpl=0, dr7=_NO_BREAKPOINTS)
    p.cpu.set_intercepts(p.intercepts)
    p.complete(state)
