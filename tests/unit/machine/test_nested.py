# SPDX-License-Identifier: GPL-2.0-only
"""L1's VMRUN and its kin: what is checked, what is switched, events and interrupts for L2, a hostile L1."""

from __future__ import annotations

import struct

import pytest
from designs import every_design
from nested_bench import (
    L1_CODE,
    L1_ROOT,
    L1_STACK,
    L2_CODE,
    L2_DATA,
    L2_STACK,
    L2_TABLES,
    MEMORY,
    NESTED_ROOT,
    ON,
    VMCB,
    VMMCALL,
    Bench,
)

from shadowmmu.machine.seam import Reg, Seg, Segment, Table
from shadowmmu.x86.control import Cr0, Cr4, Efer, Rflags
from shadowmmu.x86.vmcb import EventInj, EventType, Intercept1, SvmExit, VIntr, Vmcb

FORMS = pytest.mark.parametrize("form", ["4-level", "pae", "2-level"])
VMRUN, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, INVLPGA = "0f01d8", "0f01da", "0f01db", "0f01dc", "0f01dd", "0f01de", "0f01df"
INVALID = SvmExit.INVALID


def event(vector: int, kind: EventType, error_code: int | None = None) -> int:
    """A value for EVENTINJ, or of EXITINTINFO."""
    info = vector | kind << EventInj.TYPE_SHIFT | EventInj.VALID
    return info if error_code is None else info | EventInj.HAS_ERROR_CODE | error_code << EventInj.ERROR_CODE_SHIFT


# --- entry and exit


@every_design
@FORMS
@pytest.mark.parametrize("npt", [True, False])
def test_vmrun_and_back(form: str, npt: bool, roots: str) -> None:
    """L2's state goes in and out by the VMCB; general registers are shared; L1 is as it was."""
    bench = Bench(form, npt=npt, roots=roots)
    bench.set_mode(form)
    bench.set(Vmcb.RAX, 0x1234)
    before = bench.l1_state()
    assert bench.l2("ffc3 50" + VMMCALL) == SvmExit.VMMCALL  # inc ebx; push rax
    assert bench.field(Vmcb.RIP) == L2_CODE + 3
    assert bench.field(Vmcb.RSP) == L2_STACK - (8 if form == "4-level" else 4)
    assert bench.field(Vmcb.RAX) == 0x1234
    state = bench.processor.cpu.state()
    assert (state.rip, state.gpr[Reg.RAX], state.gpr[Reg.RSP]) == (L1_CODE + 3, VMCB, L1_STACK)
    assert state.gpr[Reg.RBX] == before.gpr[Reg.RBX] + 1
    assert state.system.gdtr == Table(0x1000, 0x17)
    assert state.system.segments == before.system.segments
    assert (bench.vcpu.cr3, bench.processor.gif) == (L1_ROOT, False)
    assert bench.machine.vm.vcpus[0].mmu_name == "root"


@every_design
@pytest.mark.parametrize("npt", [True, False])
@pytest.mark.parametrize("mode", ["unpaged", "2-level", "pae", "4-level"])
def test_l2_in_every_mode(mode: str, npt: bool, roots: str) -> None:
    bench = Bench("4-level", npt=npt, roots=roots)
    bench.set_mode(mode)
    bench.store(L2_DATA, 0x5A, 4)
    bench.set(Vmcb.RAX, L2_DATA)
    bench.l2_done("8b18 895804")  # mov ebx, [rax]; mov [rax + 4], ebx
    assert bench.load(L2_DATA + 4, 4) == 0x5A
    assert bench.field(Vmcb.CR3) == 0x50000
    assert bool(bench.field(Vmcb.EFER) & Efer.LMA) == (mode == "4-level")


@every_design
@pytest.mark.parametrize(("form", "mode"), [("5-level", "5-level"), ("4-level", "5-level"), ("5-level", "4-level"), ("5-level", "pae")])
def test_5_levels_without_nested_paging(form: str, mode: str, roots: str) -> None:
    """The nested tables of this CPU have four levels, so with nested paging nobody is offered CR4.LA57."""
    bench = Bench(form, npt=False, roots=roots)
    bench.set_mode(mode)
    bench.store(L2_DATA, 0x5A, 4)
    bench.set(Vmcb.RAX, L2_DATA)
    bench.l2_done("8b18 895804")
    assert bench.load(L2_DATA + 4, 4) == 0x5A


def test_what_l2_changes_of_itself_is_saved() -> None:
    bench = Bench(npt=True)
    bench.set_mode("4-level", cpl=3)
    bench.set_segment(Vmcb.FS, Segment(0, 0, 0, 0x1111))
    bench.l2_done("9c 58 0d00020000 48c7c300000000 8ec3")  # pushf; pop rax; or eax, 200h; mov rbx, 0; mov es, ebx
    assert bench.field(Vmcb.CPL, 1) == 3
    assert bench.field(Vmcb.ES, 2) == 0
    assert bench.field(Vmcb.CS, 2) == 0xB
    assert bench.processor.cpu.state().system.segments[Seg.FS].base == 0, "VMRUN does not load FS"


def test_dr7_of_l1_is_reset() -> None:
    bench = Bench()
    bench.set(Vmcb.DR7, 0x401)
    bench.set(Vmcb.DR6, 0xFFFF4FF0)
    bench.l2_done("")
    assert (bench.field(Vmcb.DR7), bench.field(Vmcb.DR6)) == (0x401, 0xFFFF4FF0)
    assert bench.processor.cpu.state().system.dr7 == 0x400


def test_l2_steps_with_the_trap_flag_of_its_vmcb() -> None:
    """Behind its first instruction. The exit leaves TF as it is, so who enters it again without a look at RFLAGS steps on."""
    bench = Bench()
    bench.set(Vmcb.RFLAGS, 2 | Rflags.TF)
    bench.set(Vmcb.EXCEPTION_INTERCEPTS, 1 << 1, 4)
    assert bench.l2("ffc3 ffc3 9c 58" + VMMCALL) == SvmExit.EXCEPTION + 1  # inc ebx; inc ebx; pushf; pop rax
    assert (bench.field(Vmcb.RIP), bench.field(Vmcb.DR6) >> 14 & 1) == (L2_CODE + 2, 1)
    assert bench.field(Vmcb.RFLAGS) & Rflags.TF
    bench.run()
    assert (bench.field(Vmcb.EXIT_CODE), bench.field(Vmcb.RIP)) == (SvmExit.EXCEPTION + 1, L2_CODE + 4)
    bench.set(Vmcb.RFLAGS, 2)
    bench.run()
    assert (bench.field(Vmcb.EXIT_CODE), bench.field(Vmcb.RAX)) == (SvmExit.VMMCALL, 2)


def test_breakpoints_of_l2_on_data_are_those_of_its_vmcb() -> None:
    bench = Bench()
    bench.set(Vmcb.DR7, 0xD0401)  # four bytes at DR0, writes
    bench.set(Vmcb.RAX, L2_DATA)
    bench.set(Vmcb.EXCEPTION_INTERCEPTS, 1 << 1, 4)
    assert bench.l2("0f23c0 8b18 8918 90" + VMMCALL) == SvmExit.EXCEPTION + 1  # mov dr0, rax; mov ebx, [rax]; mov [rax], ebx; nop
    assert (bench.field(Vmcb.RIP), bench.field(Vmcb.DR6) & 0xF, bench.field(Vmcb.DR7)) == (L2_CODE + 7, 1, 0xD0401)
    bench.set(Vmcb.DR7, 0x2400)
    assert bench.l2("0f21c3" + VMMCALL) == SvmExit.EXCEPTION + 1  # mov rbx, dr0; GD
    assert (bench.field(Vmcb.RIP), bench.field(Vmcb.DR6) >> 13 & 1, bench.field(Vmcb.DR7)) == (L2_CODE, 1, 0x400)
    bench.l2_done("0f21c3 891b")  # mov rbx, dr0; mov [rbx], ebx
    assert bench.load(L2_DATA, 4) == L2_DATA


def test_pat_tsc_and_task_priority_are_switched() -> None:
    bench = Bench()
    bench.set(Vmcb.G_PAT, 0x0606060606060606)
    bench.set(Vmcb.TSC_OFFSET, 1 << 40)
    bench.set(Vmcb.V_INTR, VIntr.MASKING | 5)
    bench.processor.task_priority = 2
    # rdtsc; mov ebx, edx; mov ecx, 277h; rdmsr; mov esi, eax; mov rdi, cr8; mov eax, 9; mov cr8, rax
    bench.l2_done("0f31 89d3 b977020000 0f32 89c6 440f20c7 b809000000 440f22c0")
    gpr = bench.processor.cpu.state().gpr
    assert (gpr[Reg.RBX], gpr[Reg.RSI], gpr[Reg.RDI]) == (1 << 8, 0x06060606, 5)
    assert bench.field(Vmcb.V_INTR) & 0xFF == 9
    assert bench.processor.task_priority == 2
    assert bench.processor.svm.pat == 0x0007040600070406
    assert bench.processor.msrs.tsc_offset == 0


def test_interrupt_shadow_is_saved_and_loaded() -> None:
    bench = Bench()
    bench.set(Vmcb.RFLAGS, 0x2)
    assert bench.l2("fb f4") == SvmExit.HLT  # sti; hlt
    assert bench.field(Vmcb.INTERRUPT_SHADOW) == 1
    assert bench.l2("90 f4") == SvmExit.HLT
    assert bench.field(Vmcb.INTERRUPT_SHADOW) == 0


@pytest.mark.parametrize(("cr0", "flags", "cpl"), [(Cr0.ET, 2, 0), (ON, 2 | Rflags.VM, 3), (ON, 2, 3)])
def test_vmmcall_is_legal_in_every_mode(cr0: int, flags: int, cpl: int) -> None:
    """In real mode, in virtual-8086 mode and in ring 3."""
    bench = Bench()
    bench.set_mode("pae", cpl=cpl)
    bench.set(Vmcb.CR0, cr0)
    bench.set(Vmcb.RFLAGS, flags)
    assert bench.l2(VMMCALL) == SvmExit.VMMCALL


def test_single_step_over_vmrun() -> None:
    """L1 traps behind its VMRUN once it has its registers back."""
    bench = Bench()
    bench.put(L2_CODE, VMMCALL)
    state = bench.l1_state()
    state.rflags |= 0x100
    result = bench.run(state)
    assert result.injected["#DB"] == 1
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL


# --- the instructions


@pytest.mark.parametrize("code", [VMRUN, VMLOAD, VMSAVE, STGI, CLGI, INVLPGA, VMMCALL, SKINIT])
def test_without_svme_they_are_undefined(code: str) -> None:
    bench = Bench()
    bench.vcpu.set_efer(bench.vcpu.efer & ~Efer.SVME)
    bench.put(L1_CODE, code + "f4")
    assert next(iter(bench.run().injected)) == "#UD"


@pytest.mark.parametrize("code", [VMRUN, VMLOAD, VMSAVE, STGI, CLGI, INVLPGA, SKINIT])
@pytest.mark.parametrize("svme", [True, False])
def test_outside_ring_0(code: str, svme: bool) -> None:
    """One that is not offered is undefined, whoever asks."""
    raised = "#GP" if svme and code != SKINIT else "#UD"
    bench = Bench()
    if not svme:
        bench.vcpu.set_efer(bench.vcpu.efer & ~Efer.SVME)
    bench.put(L1_CODE, code + "f4")
    state = bench.l1_state()
    state.set_segments({Seg.CS: Segment(0xB, 0xAFB, 0xFFFFFFFF, 0), Seg.SS: Segment(0x13, 0xCF3, 0xFFFFFFFF, 0)})
    state.system = state.system._replace(cpl=3)
    assert next(iter(bench.run(state).injected)) == raised


@pytest.mark.parametrize("code", [VMRUN, VMLOAD, VMSAVE])
@pytest.mark.parametrize("address", [VMCB + 8, 1 << 40, MEMORY, 1 << 63])
def test_a_vmcb_must_be_a_page_of_memory(code: str, address: int) -> None:
    bench = Bench()
    bench.put(L1_CODE, code + "f4")
    state = bench.l1_state()
    state.gpr[Reg.RAX] = address
    assert next(iter(bench.run(state).injected)) == "#GP"
    assert bench.processor.nested is None


def test_in_32_bit_code_only_eax_counts() -> None:
    bench = Bench("pae")
    bench.put(L2_CODE, VMMCALL)
    state = bench.l1_state()
    state.gpr[Reg.RAX] |= 0x5555 << 32
    assert bench.run(state).reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL


def test_vmload_and_vmsave() -> None:
    bench = Bench()
    bench.set_segment(Vmcb.FS, Segment(0x20, 0xC93, 0xFFFF, 0x1234_5678_9ABC))
    bench.set_segment(Vmcb.TR, Segment(0x40, 0x8B, 0x67, 0x4000))
    words = {at: 0x1000 * i for i, at in enumerate(range(Vmcb.STAR, Vmcb.SYSENTER_EIP + 8, 8), 1)}
    for at, value in words.items():
        bench.set(at, value)
    bench.put(L1_CODE, VMLOAD + "f4")
    assert bench.run().reason == "halted"
    state = bench.processor.cpu.state()
    assert state.system.segments[Seg.FS] == Segment(0x20, 0xC93, 0xFFFF, 0x1234_5678_9ABC)
    assert state.system.tr == Segment(0x40, 0x8B, 0x67, 0x4000)
    kept = bench.processor.svm
    assert (state.system.star, kept.lstar, kept.cstar, kept.sfmask) == (0x1000, 0x2000, 0x3000, 0x4000)
    before = bench.vm.read_guest(VMCB, 4096)
    bench.vm.write_guest(VMCB + Vmcb.FS, bytes(0x60))
    bench.vm.write_guest(VMCB + Vmcb.STAR, bytes(0x40))
    bench.put(L1_CODE, VMSAVE + "f4")
    state.rip = L1_CODE
    assert bench.run(state).reason == "halted"
    for at in (Vmcb.FS, Vmcb.GS, Vmcb.LDTR, Vmcb.TR):
        assert bench.vm.read_guest(VMCB + at, 16) == before[at : at + 16]
    assert {at: bench.field(at) for at in words} == words


def test_gif_and_invlpga() -> None:
    bench = Bench()
    for code, gif in ((CLGI, False), (STGI, True), (CLGI + INVLPGA + STGI, True), (STGI + CLGI, False)):
        bench.put(L1_CODE, code + "f4")
        assert bench.run().reason == "halted"
        assert bench.processor.gif is gif


# --- illegal states


@pytest.mark.parametrize(
    ("at", "value", "size"),
    [
        (Vmcb.INTERCEPTS_2, 2, 4),  # without VMRUN
        (Vmcb.GUEST_ASID, 0, 4),
        (Vmcb.TLB_CONTROL, 2, 1),
        (Vmcb.EFER, Efer.LME | Efer.LMA, 8),
        (Vmcb.EFER, Efer.SVME | 1 << 20, 8),
        (Vmcb.CR0, 1 << 32 | Cr0.PG | Cr0.PE, 8),
        (Vmcb.CR0, Cr0.PG | Cr0.PE | Cr0.NW, 8),
        (Vmcb.CR0, Cr0.PG, 8),  # with EFER.LME
        (Vmcb.CR3, 1 << 40, 8),
        (Vmcb.CR4, 0, 8),  # no PAE with EFER.LME
        (Vmcb.CR4, Cr4.PAE | Cr4.PKE, 8),
        (Vmcb.CR4, Cr4.PAE | Cr4.LA57, 8),
        (Vmcb.DR6, 1 << 32, 8),
        (Vmcb.DR7, 1 << 32, 8),
        (Vmcb.CS + 2, 0xE9B, 2),  # L and D
        (Vmcb.N_CR3, 1 << 40, 8),
        (Vmcb.G_PAT, 0x02, 8),
        (Vmcb.EVENT_INJ, event(6, EventType.EXCEPTION) | 1 << 8 << 2, 8),  # type 7
        (Vmcb.EVENT_INJ, 1 << 31 | 1 << 8, 8),  # type 1
        (Vmcb.EVENT_INJ, event(2, EventType.EXCEPTION), 8),
        (Vmcb.EVENT_INJ, event(32, EventType.EXCEPTION), 8),
    ],
)
def test_illegal_states_are_not_entered(at: int, value: int, size: int) -> None:
    bench = Bench()
    bench.set(at, value, size)
    before = bench.vm.read_guest(VMCB + Vmcb.ES, 0x300)
    assert bench.l2(VMMCALL) == INVALID
    assert bench.vm.read_guest(VMCB + Vmcb.ES, 0x300) == before
    assert (bench.processor.cpu.state().rip, bench.processor.gif) == (L1_CODE + 3, False)


@pytest.mark.parametrize(("bit", "at"), [(Intercept1.IOIO, Vmcb.IOPM_BASE), (Intercept1.MSR, Vmcb.MSRPM_BASE)])
def test_permission_maps_must_be_addressable(bit: int, at: int) -> None:
    bench = Bench()
    bench.set(at, (1 << 40) - 0x1000)
    bench.l2_done("")
    bench.set(Vmcb.INTERCEPTS_1, bit, 4)
    assert bench.l2(VMMCALL) == INVALID


@every_design
def test_bad_pdptes_of_l2(roots: str) -> None:
    """Without nested paging they are loaded, and checked, at entry; with it the CPU meets them at a walk."""
    bench = Bench(npt=False, roots=roots)
    bench.set_mode("pae")
    bench.store(0x50000, 0x51003)
    assert bench.l2(VMMCALL) == INVALID
    assert not bench.vcpu.guest_mode
    bench.store(0x50000, 0x51001)
    bench.l2_done("")


@every_design
def test_what_makes_l1_shut_down_is_its_own_cr3(roots: str) -> None:
    """L2, which shares L1's memory, puts a reserved bit into a PDPTE of L1's while it runs on tables of its own."""
    bench = Bench("pae", npt=False, roots=roots)
    bench.set_mode("pae")
    bench.put(L2_CODE, f"c705{L1_ROOT.to_bytes(4, 'little').hex()}07000000" + VMMCALL)
    result = bench.run()
    assert (result.reason, result.detail) == ("triple fault", f"the CR3 of L1, {L1_ROOT:#x}, has become illegal while L2 ran")


def test_nested_paging_must_be_offered() -> None:
    bench = Bench(npt=False)
    bench.set(Vmcb.NESTED_PAGING, 1)
    bench.set(Vmcb.N_CR3, NESTED_ROOT)
    assert bench.l2(VMMCALL) == INVALID


def test_nested_paging_needs_paging_of_l1() -> None:
    bench = Bench("2-level")
    bench.vcpu.set_sregs(0x11, 0, 0, int(Efer.SVME))
    assert bench.l2(VMMCALL) == INVALID
    bench.set(Vmcb.NESTED_PAGING, 0)
    bench.l2_done("")


# --- events


@every_design
@pytest.mark.parametrize("npt", [True, False])
@pytest.mark.parametrize(
    ("info", "pushed"),
    [
        (event(6, EventType.EXCEPTION), ()),
        (event(13, EventType.EXCEPTION, 0x28), (0x28,)),
        (event(14, EventType.EXCEPTION, 7), (7,)),
        (event(0x21, EventType.INTERRUPT), ()),
        (event(0x0E, EventType.INTERRUPT), ()),
        (event(2, EventType.NMI), ()),
        (event(0x80, EventType.SOFTWARE_INTERRUPT), ()),
    ],
)
def test_an_event_is_delivered_at_entry(info: int, pushed: tuple[int, ...], npt: bool, roots: str) -> None:
    bench = Bench(npt=npt, roots=roots)
    vector = info & 0xFF
    bench.gate(vector, L2_CODE + 0x20)
    bench.put(L2_CODE + 0x20, VMMCALL)
    bench.set(Vmcb.CR2, 0xABC000)
    bench.set(Vmcb.EXCEPTION_INTERCEPTS, 0xFFFFFFFF, 4)  # of those that L1 injects none exits
    bench.set(Vmcb.EVENT_INJ, info)
    assert bench.l2("f4") == SvmExit.VMMCALL
    assert bench.field(Vmcb.RIP) == L2_CODE + 0x20
    assert bench.field(Vmcb.CR2) == 0xABC000
    assert bench.field(Vmcb.EVENT_INJ) == 0
    rsp = bench.field(Vmcb.RSP)
    assert rsp == L2_STACK - 8 * (5 + len(pushed))
    assert bench.vm.read_guest(rsp, 8 * (1 + len(pushed))) == struct.pack(f"<{1 + len(pushed)}Q", *pushed, L2_CODE)


@every_design
def test_an_event_without_a_gate_ends_in_a_shutdown_for_l1(roots: str) -> None:
    bench = Bench(roots=roots)
    bench.set(Vmcb.EVENT_INJ, event(6, EventType.EXCEPTION))
    assert bench.l2("f4") == SvmExit.SHUTDOWN


def test_a_fault_of_the_delivery_is_l1s_with_the_event() -> None:
    bench = Bench()
    bench.set(Vmcb.EXCEPTION_INTERCEPTS, 1 << 11, 4)  # the gate is not present
    bench.set(Vmcb.EVENT_INJ, event(6, EventType.EXCEPTION))
    bench.vm.write_guest(L2_TABLES + 16 * 6, struct.pack("<Q", 0x0E00 << 32 | 8 << 16))
    assert bench.l2("f4") == SvmExit.EXCEPTION + 11
    assert bench.exit() == (SvmExit.EXCEPTION + 11, 6 << 3 | 2 | 1, 0)
    assert bench.field(Vmcb.EXIT_INT_INFO) == event(6, EventType.EXCEPTION)


def test_a_double_fault_is_l1s() -> None:
    bench = Bench()
    bench.set(Vmcb.EXCEPTION_INTERCEPTS, 1 << 8, 4)
    bench.set(Vmcb.EVENT_INJ, event(13, EventType.EXCEPTION, 0))
    assert bench.l2("f4") == SvmExit.EXCEPTION + 8


@every_design
@pytest.mark.parametrize(("place", "cause"), [(L2_TABLES, 32), (L2_STACK - 8, 32), (0x54000, 33)])
def test_a_delivery_that_meets_a_nested_fault(place: int, cause: int, roots: str) -> None:
    """L1 took away L2's IDT, its stack, or one of its page tables, and hears of the event that was cut short."""
    bench = Bench(roots=roots)
    bench.gate(6, L2_CODE + 0x20)
    bench.put(L2_CODE + 0x20, VMMCALL)
    bench.l2_done("")
    bench.nested.map(place & -0x1000, 0, 0)
    bench.set(Vmcb.EVENT_INJ, event(6, EventType.EXCEPTION))
    assert bench.l2("f4") == SvmExit.NESTED_PAGE_FAULT
    assert bench.field(Vmcb.EXIT_INFO_2) & -0x1000 == place & -0x1000
    assert bench.field(Vmcb.EXIT_INFO_1) >> 32 == 1 << cause - 32
    assert bench.field(Vmcb.EXIT_INT_INFO) == event(6, EventType.EXCEPTION)
    bench.nested.map(place & -0x1000, place & -0x1000)
    bench.set(Vmcb.EVENT_INJ, bench.field(Vmcb.EXIT_INT_INFO))
    assert bench.run().reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL


def interrupt(priority: int = 0, *, ignore_tpr: bool = True) -> int:
    return 0x21 << VIntr.VECTOR_SHIFT | VIntr.IRQ | (VIntr.IGNORE_TPR if ignore_tpr else 0) | priority << VIntr.PRIORITY_SHIFT


def test_a_virtual_interrupt_waits_until_l2_is_ready() -> None:
    bench = Bench()
    bench.gate(0x21, L2_CODE + 0x20)
    bench.put(L2_CODE + 0x20, VMMCALL)
    bench.set(Vmcb.V_INTR, interrupt())
    assert bench.l2("31db 90 fb ffc3 ffc3 f4") == SvmExit.VMMCALL  # xor ebx, ebx; nop; sti; inc ebx; inc ebx; hlt
    assert bench.processor.cpu.state().gpr[Reg.RBX] == 1, "one instruction behind STI"
    assert not bench.field(Vmcb.V_INTR) & VIntr.IRQ
    assert bench.load(bench.field(Vmcb.RSP)) == L2_CODE + 6


@pytest.mark.parametrize(("first", "length"), [("ffc3", 2), ("891f", 2)])
def test_a_virtual_interrupt_waits_for_the_shadow_that_vmrun_loads(first: str, length: int) -> None:
    """One instruction long, also if that faults on the way: inc ebx; mov [rdi], ebx."""
    bench = Bench()
    bench.gate(0x21, L2_CODE + 0x20)
    bench.put(L2_CODE + 0x20, VMMCALL)
    bench.set(Vmcb.RFLAGS, 0x202)
    bench.set(Vmcb.V_INTR, interrupt())
    bench.set(Vmcb.INTERRUPT_SHADOW, 1)
    assert bench.l2(first + "90 f4") == SvmExit.VMMCALL
    assert bench.load(bench.field(Vmcb.RSP)) == L2_CODE + length
    assert bench.field(Vmcb.INTERRUPT_SHADOW) == 0


def test_a_virtual_interrupt_that_l2_is_never_ready_for_stays_pending() -> None:
    bench = Bench()
    bench.set(Vmcb.V_INTR, interrupt())
    bench.l2_done("90")
    assert bench.field(Vmcb.V_INTR) & VIntr.IRQ


def test_l1_may_intercept_the_virtual_interrupt() -> None:
    bench = Bench()
    bench.set(Vmcb.V_INTR, interrupt())
    bench.set(Vmcb.INTERCEPTS_1, Intercept1.VINTR, 4)
    assert bench.l2("fb 90 90" + VMMCALL) == SvmExit.VINTR
    assert bench.field(Vmcb.RIP) == L2_CODE + 2
    assert bench.field(Vmcb.V_INTR) & VIntr.IRQ


def test_a_virtual_interrupt_waits_for_the_task_priority() -> None:
    bench = Bench()
    bench.gate(0x21, L2_CODE + 0x20)
    bench.put(L2_CODE + 0x20, VMMCALL)
    bench.set(Vmcb.RFLAGS, 0x202)
    bench.set(Vmcb.V_INTR, interrupt(4, ignore_tpr=False) | VIntr.MASKING | 5)
    # xor ebx, ebx; inc ebx; mov eax, 3; mov cr8, rax; inc ebx; hlt
    assert bench.l2("31db ffc3 b803000000 440f22c0 ffc3 f4") == SvmExit.VMMCALL
    assert bench.processor.cpu.state().gpr[Reg.RBX] == 1


# --- a hostile L1


@every_design
@FORMS
@pytest.mark.parametrize("kernel", ["6.1", "7.3"])
@pytest.mark.parametrize("root", [MEMORY, 0xFFFFF000, VMCB, L1_ROOT, NESTED_ROOT + 0x1000, 0])
def test_nested_tables_anywhere(root: int, kernel: str, form: str, roots: str) -> None:
    """What is no table, or lies outside memory, costs L1 its L2, and nobody else anything."""
    bench = Bench(form, roots=roots, kernel=kernel)
    bench.set(Vmcb.N_CR3, root)
    code = bench.l2("8b05" + "00000000" + VMMCALL)
    assert code in (SvmExit.VMMCALL, SvmExit.NESTED_PAGE_FAULT, SvmExit.SHUTDOWN)
    outside = root in (MEMORY, 0xFFFFF000)
    assert (code == SvmExit.SHUTDOWN) == (outside and kernel == "6.1")
    assert code == SvmExit.NESTED_PAGE_FAULT or not outside or kernel == "6.1", "later kernels shadow it by a table of nothing"


@every_design
def test_nested_tables_that_map_everything_to_the_vmcb(roots: str) -> None:
    """L2 executes and writes L1's VMCB, which changes nothing of the run that goes on."""
    bench = Bench(roots=roots)
    for page in (L2_CODE, L2_DATA):
        bench.nested.map(page, VMCB)
    bench.set(Vmcb.RIP, L2_CODE + 0xF00)
    bench.put(VMCB + 0xF00, "c70310000000" + VMMCALL)  # mov dword [rbx], 10h
    state = bench.l1_state()
    state.gpr[Reg.RBX] = L2_DATA + Vmcb.INTERCEPTS_2
    assert bench.run(state).reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL
    assert bench.field(Vmcb.INTERCEPTS_2, 4) == 0x10
    assert bench.l2(VMMCALL) == INVALID, "without VMRUN's intercept the next one fails"


@every_design
@FORMS
def test_a_vmcb_that_is_a_nested_table(form: str, roots: str) -> None:
    """#VMEXIT stores EXITINFO2 over an entry that L2 has just used; its shadow goes with it."""
    bench = Bench(form, roots=roots)
    bench.set_mode("unpaged")
    table = bench.nested.entry(0x800000) & -0x1000
    address = 0x800000 + Vmcb.EXIT_INFO_2 // bench.nested.size * 0x1000
    bench.vm.write_guest(table, bench.vm.read_guest(VMCB, 4096))
    state = bench.l1_state()
    state.gpr[Reg.RAX], state.gpr[Reg.RBX] = table, address
    bench.put(L2_CODE, "8b0b" + VMMCALL)  # mov ecx, [rbx]
    bench.nested.map(address, L2_DATA)
    assert bench.run(state).reason == "halted"
    assert bench.load(table + Vmcb.EXIT_CODE) == SvmExit.VMMCALL
    assert bench.load(table + Vmcb.EXIT_INFO_2) == 0
    bench.vm.write_guest(table + Vmcb.RIP, struct.pack("<Q", L2_CODE))
    assert bench.run(state).reason == "halted"
    assert bench.load(table + Vmcb.EXIT_CODE) == SvmExit.NESTED_PAGE_FAULT
    assert bench.load(table + Vmcb.EXIT_INFO_2) == address


def test_vmrun_in_a_loop_ends_at_the_limit() -> None:
    bench = Bench()
    bench.put(L1_CODE, VMRUN + "ebfb")  # vmrun; jmp to it
    bench.set(Vmcb.GUEST_ASID, 0, 4)
    assert bench.run(max_exits=500).reason == "exit limit"
    bench.set(Vmcb.GUEST_ASID, 1, 4)
    bench.put(L2_CODE, VMMCALL)
    assert bench.run(max_exits=500).reason == "exit limit"


def test_an_l2_that_spins_is_ended() -> None:
    bench = Bench()
    bench.put(L2_CODE, "ebfe")
    assert bench.run().reason == "spinning"


def test_an_l2_cannot_end_the_machine_by_what_is_not_emulated() -> None:
    bench = Bench()
    bench.nested.map(L2_DATA, MEMORY)  # no memory there
    bench.set(Vmcb.EXCEPTION_INTERCEPTS, 1 << 6, 4)
    assert bench.l2("480fae042500202000" + VMMCALL) == SvmExit.EXCEPTION + 6  # fxsave64 [L2_DATA]


def test_l2_and_hlt_that_l1_does_not_want() -> None:
    bench = Bench()
    bench.set(Vmcb.INTERCEPTS_1, 0, 4)
    bench.put(L2_CODE, "f4")
    assert bench.run().reason == "halted"
    assert bench.processor.nested is not None


def test_the_vmcbs_memory_is_taken_away_while_l2_runs() -> None:
    bench = Bench()
    bench.put(L2_CODE, "0fa2" + VMMCALL)
    bench.machine.on_exit = lambda machine, exit_: machine.vm.set_memslot(0, 0, 0) if exit_.kind.value == "CPUID" else None
    assert bench.run().reason == "triple fault", "no memory is left for L1 either"


@pytest.mark.parametrize(("npt", "reason"), [(True, SvmExit.VMMCALL), (False, SvmExit.SHUTDOWN)])
def test_an_l2_that_switches_tasks_by_hardware(npt: bool, reason: int) -> None:
    """With nested paging the CPU does it; with shadow paging the machine cannot follow, and L2 is at its end."""
    bench = Bench("pae", npt=npt)
    bench.set_mode("pae")
    tss, gdt = L2_DATA, L2_DATA + 0xF00
    bench.vm.write_guest(gdt + 0x18, struct.pack("<Q", 0x67 | (tss & 0xFFFF) << 16 | (tss >> 16) << 32 | 0x89 << 40))
    bench.set_segment(Vmcb.GDTR, Segment(0, 0, 0x1F, gdt))
    task = [0] * 26
    task[7], task[8], task[9], task[14] = 0x50000, L2_CODE + 0x20, 2, L2_STACK  # CR3, EIP, EFLAGS, ESP
    task[18:24] = 0x10, 8, 0x10, 0x10, 0, 0
    bench.vm.write_guest(tss, struct.pack("<26I", *task))
    bench.put(L2_CODE + 0x20, VMMCALL)
    assert bench.l2("ea000000001800") == reason  # jmp 18h:0


def test_an_l1_that_switches_to_an_empty_task_shuts_down() -> None:
    """Its TSS is all zeroes: no code segment, no tables."""
    bench = Bench("pae", npt=False)
    bench.vm.write_guest(0x1000, struct.pack("<4Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x0000892020000067))
    bench.put(L1_CODE, "ea000000001800")
    state = bench.l1_state()
    state.system = state.system._replace(gdtr=Table(0x1000, 0x1F))
    assert bench.run(state).reason == "triple fault"


@every_design
@FORMS
def test_two_vcpus_each_with_an_l2(form: str, roots: str) -> None:
    """They share L1's nested tables; one L2 writes what the other reads."""
    bench = Bench(form, roots=roots, vcpus=2)
    bench.set_mode("unpaged")
    second = VMCB + 0x1000
    bench.vm.write_guest(second, bench.vm.read_guest(VMCB, 4096))
    wait, done = L2_DATA, L2_DATA + 4
    bench.put(L2_CODE, f"c705{struct.pack('<I', wait).hex()}01000000" + VMMCALL)  # mov dword [wait], 1; vmmcall
    # pause; cmp dword [wait], 1; jne; mov dword [done], 2; vmmcall
    bench.put(L2_CODE + 0x40, f"f390 833d{struct.pack('<I', wait).hex()}01 75f5 c705{struct.pack('<I', done).hex()}02000000" + VMMCALL)
    bench.vm.write_guest(second + Vmcb.RIP, struct.pack("<Q", L2_CODE + 0x40))
    other = bench.l1_state()
    other.gpr[Reg.RAX] = second
    bench.machine.processors[1].cpu.set_state(other)
    assert bench.run().reason == "halted"
    assert (bench.load(wait, 4), bench.load(done, 4)) == (1, 2)
    assert bench.load(VMCB + Vmcb.EXIT_CODE) == bench.load(second + Vmcb.EXIT_CODE) == SvmExit.VMMCALL
