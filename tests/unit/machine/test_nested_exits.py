# SPDX-License-Identifier: GPL-2.0-only
"""What L1 is told of L2: exit codes and their information, permission maps, page faults."""

from __future__ import annotations

import struct

import pytest
from designs import every_design
from nested_bench import IOPM, L2_CODE, L2_DATA, L2_STACK, L2_TABLES, MEMORY, MSRPM, VMMCALL, Bench

from shadowmmu.machine.seam import Reg
from shadowmmu.machine.svm.reflect import exit_name
from shadowmmu.x86.control import Cr0
from shadowmmu.x86.vectors import UD
from shadowmmu.x86.vmcb import Intercept1, Intercept2, SvmExit, Vmcb

CR, DR, EXCEPTIONS = Vmcb.CR_READ_INTERCEPTS, Vmcb.DR_READ_INTERCEPTS, Vmcb.EXCEPTION_INTERCEPTS
ONE, TWO = Vmcb.INTERCEPTS_1, Vmcb.INTERCEPTS_2
VMRUN = int(Intercept2.VMRUN)  # must always be intercepted
RAX = int(Cr0.PG | Cr0.PE)


@pytest.mark.parametrize(
    ("at", "mask", "code", "exit_code"),
    [
        (CR, 1 << 0, "0f20c0", SvmExit.CR_READ),  # mov rax, cr0
        (CR, 1 << 0, "0f01e0", SvmExit.CR_READ),  # smsw eax
        (CR, 1 << 2, "0f20d0", SvmExit.CR_READ + 2),
        (CR, 1 << 3, "0f20d8", SvmExit.CR_READ + 3),
        (CR, 1 << 4, "0f20e0", SvmExit.CR_READ + 4),
        (CR, 1 << 8, "440f20c0", SvmExit.CR_READ + 8),
        (CR, 1 << 16, "0f22c0", SvmExit.CR_WRITE),
        (CR, 1 << 16, "0f06", SvmExit.CR_WRITE),  # clts
        (CR, 1 << 16, "0f01f0", SvmExit.CR_WRITE),  # lmsw ax
        (CR, 1 << 19, "0f22d8", SvmExit.CR_WRITE + 3),
        (CR, 1 << 20, "0f22e0", SvmExit.CR_WRITE + 4),
        (CR, 1 << 24, "440f22c0", SvmExit.CR_WRITE + 8),
        (DR, 1 << 0, "0f21c0", SvmExit.DR_READ),
        (DR, 1 << 7, "0f21f8", SvmExit.DR_READ + 7),
        (DR, 1 << 19, "0f23d8", SvmExit.DR_WRITE + 3),
        (EXCEPTIONS, 1 << 0, "f6f4", SvmExit.EXCEPTION + 0),  # div ah, which is zero
        (EXCEPTIONS, 1 << 3, "cc", SvmExit.EXCEPTION + 3),
        (EXCEPTIONS, 1 << 6, "0f0b", SvmExit.EXCEPTION + 6),
        (EXCEPTIONS, 1 << 13, "0f32", SvmExit.EXCEPTION + 13),  # rdmsr of none
        (ONE, Intercept1.RDTSC, "0f31", SvmExit.RDTSC),
        (ONE, 1 << 15, "0f33", 0x6F),  # rdpmc
        (ONE, 1 << 16, "9c", 0x70),  # pushf
        (ONE, 1 << 17, "9d", 0x71),  # popf
        (ONE, Intercept1.CPUID, "0fa2", SvmExit.CPUID),
        (ONE, 1 << 20, "48cf", 0x74),  # iretq
        (ONE, Intercept1.SOFTWARE_INTERRUPT, "cd80", SvmExit.SOFTWARE_INTERRUPT),
        (ONE, Intercept1.PAUSE, "f390", SvmExit.PAUSE),
        (ONE, Intercept1.HLT, "f4", SvmExit.HLT),
        (ONE, Intercept1.INVLPG, "0f013c2500500000", SvmExit.INVLPG),
        (ONE, Intercept1.INVLPGA, "0f01df", SvmExit.INVLPGA),
        (ONE, 1 << 6, "0f010c2500202000", 0x66),  # sidt
        (ONE, 1 << 7, "0f01042500202000", 0x67),  # sgdt
        (ONE, 1 << 8, "0f00c0", 0x68),  # sldt eax
        (ONE, 1 << 9, "0f00c8", 0x69),  # str eax
        (ONE, 1 << 10, "0f011c2500202000", 0x6A),  # lidt
        (ONE, 1 << 11, "0f01142500202000", 0x6B),  # lgdt
        (ONE, 1 << 12, "0f00d2", 0x6C),  # lldt dx
        (ONE, 1 << 13, "0f00da", 0x6D),  # ltr dx
        (TWO, VMRUN, "0f01d8", SvmExit.VMRUN),
        (TWO, VMRUN | Intercept2.VMMCALL, "0f01d9", SvmExit.VMMCALL),
        (TWO, VMRUN | Intercept2.VMLOAD, "0f01da", SvmExit.VMLOAD),
        (TWO, VMRUN | Intercept2.VMSAVE, "0f01db", SvmExit.VMSAVE),
        (TWO, VMRUN | Intercept2.STGI, "0f01dc", SvmExit.STGI),
        (TWO, VMRUN | Intercept2.CLGI, "0f01dd", SvmExit.CLGI),
        (TWO, VMRUN | Intercept2.RDTSCP, "0f01f9", SvmExit.RDTSCP),
        (TWO, VMRUN | Intercept2.WBINVD, "0f09", SvmExit.WBINVD),
    ],
)
@pytest.mark.parametrize("npt", [True, False])
def test_intercepts(at: int, mask: int, code: str, exit_code: int, npt: bool) -> None:
    """L1 gets the exit, with L2 at the instruction."""
    bench = Bench(npt=npt)
    bench.set(Vmcb.RAX, RAX)
    bench.set(at, int(mask), 4)
    assert bench.l2(code + "f4") == exit_code, exit_name(bench.field(Vmcb.EXIT_CODE))
    assert bench.exit() == (exit_code, 0, 0)
    assert bench.field(Vmcb.RIP) == L2_CODE


@pytest.mark.parametrize(("intercept", "code"), [(Intercept2.SKINIT, "0f01de"), (Intercept2.RDTSCP, "0f01f9")])
def test_instructions_that_are_not_offered_are_no_exits_of_theirs(intercept: Intercept2, code: str) -> None:
    bench = Bench(without=("rdtscp",))
    bench.set(TWO, int(VMRUN | intercept), 4)
    bench.set(EXCEPTIONS, 1 << UD, 4)
    assert bench.l2(code + "f4") == SvmExit.EXCEPTION + UD


@pytest.mark.parametrize("npt", [True, False])
def test_what_l1_does_not_intercept_is_done_for_l2(npt: bool) -> None:
    bench = Bench(npt=npt)
    # mov rbx, cr0; mov cr0, rbx; mov rbx, cr3; mov cr3, rbx; mov rbx, cr4; mov cr4, rbx; clts; mov rbx, cr8; wbinvd;
    # invlpg [rsp]; rdtscp; rdtsc; pushf; popf; sgdt [rsp - 16]
    done = "0f20c3 0f22c3 0f20db 0f22db 0f20e3 0f22e3 0f06 440f20c3 0f09 0f013c24 0f01f9 0f31 9c 9d 0f014424f0"
    bench.l2_done(done)
    assert bench.field(Vmcb.CR3) == 0x50000
    bench.l2_done("b800000080 0fa2")  # mov eax, 80000000h; cpuid
    assert bench.field(Vmcb.RAX) == 0x8000000A
    bench.l2_done("b9000000c0 83c964 0f32 80cc01 0f30".replace("83c964", "81c180000000"))  # EFER, with SCE
    assert bench.field(Vmcb.EFER) >> 8 & 1


@pytest.mark.parametrize(("code", "exit_code"), [("0f22c0", SvmExit.CR0_SELECTIVE), ("0f01f0", SvmExit.CR0_SELECTIVE), ("0f06", None)])
def test_selective_writes_of_cr0(code: str, exit_code: int | None) -> None:
    """TS and MP may change unseen, but for LMSW, which is always seen. MOV CR0, LMSW, CLTS."""
    bench = Bench()
    bench.set(ONE, Intercept1.CR0_SELECTIVE, 4)
    bench.set(Vmcb.RAX, RAX | Cr0.ET | Cr0.TS | Cr0.MP)
    if code.startswith("0f01"):
        assert bench.l2(code + VMMCALL) == exit_code
        return
    bench.l2_done(code)
    bench.set(Vmcb.RAX, RAX | Cr0.ET | Cr0.EM)
    assert bench.l2(code + VMMCALL) == (exit_code or SvmExit.VMMCALL)
    assert not bench.field(Vmcb.CR0) & Cr0.EM


def test_instructions_of_svm_in_an_l2_that_may_use_them() -> None:
    """L2 names physical addresses of its own."""
    bench = Bench()
    bench.nested.map(0x3FF000, L2_DATA)
    bench.store(L2_DATA + Vmcb.KERNEL_GS_BASE, 0x1234_5000)
    bench.l2_done("b800f03f00 0f01da b800103f00 0f01db 0f01dc 0f01dd")  # vmload 3ff000h; vmsave 3f1000h; stgi; clgi
    assert bench.load(0x3F1000 + Vmcb.KERNEL_GS_BASE) == 0x1234_5000
    bench.nested.map(0x3FF000, 0, 0)
    assert bench.l2("b800f03f00 0f01da") == SvmExit.NESTED_PAGE_FAULT
    assert bench.exit() == (SvmExit.NESTED_PAGE_FAULT, 1 << 32 | 4, 0x3FF000)


def test_vmload_makes_bases_canonical() -> None:
    """By bit 47, on a CPU without 5-level paging: L2's VMLOAD and VMSAVE of one page."""
    bench = Bench()
    bench.nested.map(0x3FF000, L2_DATA)
    bases = (Vmcb.FS + 8, Vmcb.GS + 8, Vmcb.LDTR + 8, Vmcb.TR + 8, Vmcb.KERNEL_GS_BASE)
    for at, base in zip(bases, (0xAAAA_0000_1234_5000, 0xAAAA_8000_0000_0000, 0x1_0000_0000_0000, 5, 1 << 63), strict=True):
        bench.store(L2_DATA + at, base)
    bench.l2_done("b800f03f00 0f01da b800f03f00 0f01db")
    assert [bench.load(L2_DATA + at) for at in bases] == [0x1234_5000, 0xFFFF_8000_0000_0000, 0, 5, 0]


def test_instructions_of_svm_in_an_l2_without_svme() -> None:
    """VMRUN loads EFER.SVME, or fails; but L2 can clear it."""
    bench = Bench()
    bench.set(EXCEPTIONS, 1 << 6, 4)
    code = "b9800000c0 0f32 25ffefffff 0f30 0f01d8"  # EFER without bit 12; vmrun
    assert bench.l2(code) == SvmExit.EXCEPTION + 6


# --- permission maps


@pytest.mark.parametrize(
    ("register", "write", "byte", "bit"),
    [(0x10, 0, 0x4, 0), (0x175, 1, 0x5D, 3), (0xC0000082, 0, 0x820, 4), (0xC0000102, 1, 0x840, 5), (0xC0010015, 0, 0x1005, 2)],
)
def test_msr_permission_map(register: int, write: int, byte: int, bit: int) -> None:
    bench = Bench()
    bench.set(ONE, Intercept1.MSR, 4)
    code = f"b9{struct.pack('<I', register).hex()} 31c0 31d2 {'0f30' if write else '0f32'}"
    bench.l2_done(code)
    bench.store(MSRPM + byte, 1 << bit, 1)
    assert bench.l2(code) == SvmExit.MSR
    assert bench.exit() == (SvmExit.MSR, write, 0)
    bench.store(MSRPM + byte, 1 << bit ^ 0xFF, 1)
    bench.l2_done(code)


def test_msrs_without_a_bit_exit_always_and_their_map_must_be_in_memory() -> None:
    bench = Bench()
    bench.set(ONE, Intercept1.MSR, 4)
    assert bench.l2("b900000040 0f32") == SvmExit.MSR
    bench.set(Vmcb.MSRPM_BASE, MEMORY)
    assert bench.l2("b910000000 0f32") == SvmExit.INVALID, "KVM reads this map at VMRUN"


SIZE_8, SIZE_16, SIZE_32, ADDRESS_32, ADDRESS_64 = 1 << 4, 1 << 5, 1 << 6, 1 << 8, 1 << 9
IN, STRING, REP, DS, FS = 1, 1 << 2, 1 << 3, 3 << 10, 4 << 10


@pytest.mark.parametrize(
    ("code", "info"),
    [
        ("e460", 0x60 << 16 | IN | SIZE_8 | ADDRESS_64),
        ("66e560", 0x60 << 16 | IN | SIZE_16 | ADDRESS_64),
        ("e5fc", 0xFC << 16 | IN | SIZE_32 | ADDRESS_64),
        ("ed", 0x1234 << 16 | IN | SIZE_32 | ADDRESS_64),
        ("e680", 0x80 << 16 | SIZE_8 | ADDRESS_64),
        ("66ef", 0x1234 << 16 | SIZE_16 | ADDRESS_64),
        ("6c", 0x1234 << 16 | IN | STRING | SIZE_8 | ADDRESS_64),
        ("f36d", 0x1234 << 16 | IN | STRING | REP | SIZE_32 | ADDRESS_64),
        ("6e", 0x1234 << 16 | STRING | SIZE_8 | ADDRESS_64 | DS),
        ("f3666f", 0x1234 << 16 | STRING | REP | SIZE_16 | ADDRESS_64 | DS),
        ("67646e", 0x1234 << 16 | STRING | SIZE_8 | ADDRESS_32 | FS),
    ],
)
def test_ports(code: str, info: int) -> None:
    """The access is described; L2 has done nothing behind it."""
    bench = Bench()
    bench.set(ONE, Intercept1.IOIO, 4)
    bench.vm.write_guest(IOPM, b"\xff" * 0x3000)
    bench.set(Vmcb.RAX, 0x55)
    bench.store(L2_DATA + 0x800, 0)
    bench.put(L2_CODE, code + "ff042500282000" + VMMCALL)  # inc dword [L2_DATA + 800h]
    state = bench.l1_state()
    state.gpr[Reg.RDX], state.gpr[Reg.RSI], state.gpr[Reg.RDI], state.gpr[Reg.RCX] = 0x1234, L2_DATA, L2_DATA + 0x100, 2
    assert bench.run(state).port_accesses == 0
    assert bench.exit() == (SvmExit.IOIO, info, L2_CODE + len(bytes.fromhex(code)))
    assert (bench.field(Vmcb.RIP), bench.field(Vmcb.RAX), bench.load(L2_DATA + 0x800)) == (L2_CODE, 0x55, 0)


def test_io_permission_map() -> None:
    bench = Bench()
    bench.set(ONE, Intercept1.IOIO, 4)
    bench.l2_done("e6e9")  # out e9h, al
    assert bench.machine.ports.writes == 1
    bench.store(IOPM + 0xEA // 8, 1 << 0xEA % 8, 1)
    bench.l2_done("e6e9")
    assert bench.l2("e7e9") == SvmExit.IOIO, "one of the four ports"
    bench.set(Vmcb.IOPM_BASE, MEMORY)
    assert bench.l2("e6e9") == SvmExit.IOIO


def test_a_port_that_l2_may_not_use_is_no_exit() -> None:
    """#GP comes before the intercept."""
    bench = Bench()
    bench.set_mode("4-level", cpl=3)
    bench.set(ONE, Intercept1.IOIO, 4)
    bench.set(EXCEPTIONS, 1 << 13, 4)
    bench.vm.write_guest(IOPM, b"\xff" * 0x3000)
    bench.put(L2_CODE, "e6e9")
    state = bench.l1_state()
    state.system = state.system._replace(tr=state.system.tr._replace(limit=0x40))  # no map of its own
    assert bench.run(state).reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.EXCEPTION + 13


# --- page faults of L2's own


@every_design
@pytest.mark.parametrize("npt", [True, False])
def test_page_faults_go_to_l1_if_it_wants_them(npt: bool, roots: str) -> None:
    bench = Bench(npt=npt, roots=roots)
    bench.l2_tables.map(0x3FF000, 0, 0)
    bench.gate(14, L2_CODE + 0x20)
    bench.put(L2_CODE + 0x20, VMMCALL)
    bench.set(Vmcb.CR2, 0x77)
    code = "c7042508f03f0001000000"  # mov dword [3ff008h], 1
    bench.set(EXCEPTIONS, 1 << 14, 4)
    assert bench.l2(code) == SvmExit.PAGE_FAULT
    assert bench.exit() == (SvmExit.PAGE_FAULT, 2, 0x3FF008)
    assert bench.field(Vmcb.CR2) == 0x77, "CR2 is as it was"
    bench.set(EXCEPTIONS, 0, 4)
    assert bench.l2(code) == SvmExit.VMMCALL
    assert bench.field(Vmcb.CR2) == 0x3FF008
    assert bench.load(bench.field(Vmcb.RSP)) == 2
    assert bench.load(bench.field(Vmcb.RSP) + 8) == L2_CODE


def test_an_intercepted_fault_of_a_delivery_names_the_event() -> None:
    """L2's stack is not mapped when its #UD is delivered."""
    bench = Bench()
    bench.l2_tables.map(L2_STACK - 0x1000, 0, 0)
    bench.gate(6, L2_CODE + 0x20)
    bench.set(EXCEPTIONS, 1 << 14, 4)
    assert bench.l2("0f0b") == SvmExit.PAGE_FAULT
    assert bench.exit() == (SvmExit.PAGE_FAULT, 2, L2_STACK - 8)
    assert bench.field(Vmcb.EXIT_INT_INFO) == 6 | 3 << 8 | 1 << 31
    assert bench.field(Vmcb.RIP) == L2_CODE


def test_a_software_interrupt_that_is_cut_short() -> None:
    bench = Bench()
    bench.l2_tables.map(L2_TABLES, 0, 0)
    bench.set(EXCEPTIONS, 1 << 14, 4)
    assert bench.l2("cd80") == SvmExit.PAGE_FAULT
    assert bench.field(Vmcb.EXIT_INT_INFO) == 0x80 | 4 << 8 | 1 << 31
    assert bench.field(Vmcb.RIP) == L2_CODE


@every_design
def test_a_shutdown_that_l1_does_not_want_is_the_machines(roots: str) -> None:
    bench = Bench(roots=roots)
    bench.put(L2_CODE, "0f0b")
    assert bench.run().reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.SHUTDOWN
    bench.set(ONE, 0, 4)
    assert bench.run().reason == "triple fault"


def test_exits_are_counted_by_name() -> None:
    bench = Bench()
    bench.set(CR, 1 << 3, 2)
    bench.set(EXCEPTIONS, 1 << 6, 4)
    for code in ("0f20d8", "0f0b", VMMCALL):
        bench.l2(code)
    assert bench.run().reflected == {"vmmcall": 2, "CR3 read": 1, "#UD": 1}
