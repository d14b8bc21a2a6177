# SPDX-License-Identifier: GPL-2.0-only
"""A CPU that is stopped runs nothing twice and leaves nothing out, wherever the stop falls."""

import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cpu_bench import CODE, CONTROLS, DATA, PAE_CONTROLS, REAL_CONTROLS, STACK, Bench, Ports
from unicorn import unicorn_const as uc_const

from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.seam import Controls, ExitKind, Reg, Seg, Segment, State, Table

SOURCE = Path(__file__).with_name("stops.asm")
PROGRAMS = {  # by the bits of the code segment; from `SOURCE`
    16: "ba0300ff05b80500f00fc1450811451052e837005a57b905008d7d20f3aa89feb90600f3a5fdb90300f2aefc5ffa9cfb51599d9c8cc850e81c00d1451831"
    "551cc1e203c1ea034a75ba0fa2ff45023b45080f924504c3ff4506cf",
    32: "ba0300000066ff07b805000000f00fc1470811471052e8410000005a57b9050000008d7f20f3aa89feb906000000f366a5fdb903000000f2aefc5ffa9cfb"
    "51599d9c8cc850e81e00000066d1471831571cc1e203c1ea034a75ab0fa266ff47023b47080f924704c366ff4706cf",
    64: "ba0300000066ff07b805000000f0480fc147084811471052e8500000005a57b905000000488d7f20f3aa4889feb906000000f366a5fdb903000000f2aefc5f"
    "fa9cfb51599d4889e0528c1424509c8cc850e82400000066d147184831571c48c1e20348c1ea0348ffca759a0fa266ff4702483b47080f924704c366ff4706"
    "48cf",
}
GDT, GDT_LIMIT = 0x7000, 0x3F
CODE_SELECTOR, DATA_SELECTOR = 0x28, 0x20
_IOPL_3 = 3 << 12
_V86 = 1 << 17
ROUNDS = 3  # of the programs
LONGEST_BLOCK = 24  # of them, in instructions
WAY_IN = 2  # instructions
FOREVER = (1 << 64) - 1


class Mode:
    """One way to run a program: segments, controls, flags."""

    def __init__(self, bits: int, controls: Controls, attr: int, *, selected: bool = True, user: bool = False) -> None:
        self.bits, self.controls, self.attr, self.selected, self.user = bits, controls, attr, selected, user

    def begin(self, bench: Bench) -> None:
        """Fresh memory and registers."""
        bench.ram[DATA : DATA + 0x1000] = bytes(range(256)) * 16
        bench.ram[STACK - 0x1000 : STACK] = bytes(0x1000)
        state = bench.state(PROGRAMS[self.bits])
        state.gpr[Reg.RBX] = state.gpr[Reg.RCX] = 0
        self._segments(bench, state)
        bench.cpu.set_state(state)
        bench.cpu.set_controls(self.controls)

    def _segments(self, bench: Bench, state: State) -> None:
        base = CODE if self.bits == 16 else 0
        dpl = 0x60 if self.user else 0
        code = Segment(CODE_SELECTOR if self.selected else CODE >> 4, self.attr | dpl, 0xFFFF if base else 0xFFFFFFFF, base)
        data = Segment(DATA_SELECTOR, 0xC93, 0xFFFFFFFF, 0)
        if self.bits == 16:
            data = Segment(DATA_SELECTOR if self.selected else DATA >> 4, 0x093 | dpl, 0xFFFF, DATA)
            state.gpr[Reg.RSP], state.gpr[Reg.RDI] = 0x4000, 0
        state.set_segments({Seg.CS: code, **dict.fromkeys((Seg.SS, Seg.DS, Seg.ES), data)})
        state.rip = CODE - base
        if self.user:
            state.rflags |= _IOPL_3 | _V86
            state.system = state.system._replace(cpl=3)
        state.system = state.system._replace(gdtr=Table(GDT, GDT_LIMIT))
        for segment in (code, data):
            bench.put(GDT + (segment.selector & GDT_LIMIT & ~7), _descriptor(segment), 8)


def _descriptor(segment: Segment) -> int:
    limit = segment.limit >> 12 if segment.attr & 0x800 else segment.limit
    attr = segment.attr & 0xFF | (segment.attr & 0xF00) << 4 | (limit >> 16 & 15) << 8
    base = segment.base
    return limit & 0xFFFF | (base & 0xFFFFFF) << 16 | attr << 40 | base >> 24 << 56


MODES = {
    "long": Mode(64, CONTROLS, 0xA9B),
    "compatibility": Mode(32, CONTROLS, 0xC9B),
    "compatibility, 16-bit": Mode(16, CONTROLS, 0x09B),
    "protected": Mode(32, PAE_CONTROLS, 0xC9B),
    "protected, 16-bit": Mode(16, PAE_CONTROLS, 0x09B),
    "real": Mode(16, REAL_CONTROLS, 0x09B, selected=False),
    "virtual-8086": Mode(16, PAE_CONTROLS, 0x09B, selected=False, user=True),
}


def _run(bench: Bench, mode: Mode, before: Callable[[], None] = lambda: None) -> tuple[tuple[object, ...], int]:
    """Run to the program's CPUID; all that it leaves behind, instructions counted included, and the number of stops."""
    mode.begin(bench)
    stops, executed = 0, bench.cpu.executed
    before()
    while (exit_ := bench.cpu.run()).kind is ExitKind.INTERRUPTED:
        stops += 1
    assert exit_.kind is ExitKind.CPUID
    state = bench.cpu.state()
    return (state.gpr, state.rip, state.rflags, state.system, bench.cpu.executed - executed, bytes(bench.ram[:0x100000])), stops


class Asker:
    """Asks for a stop at every nth call of a hook."""

    def __init__(self, bench: Bench, hook: int) -> None:
        self.calls = self.every = 0
        self.bench = bench
        bench.cpu._uc.hook_add(hook, self._call)

    def _call(self, *_: object) -> bool:
        self.calls += 1
        if self.every and self.calls % self.every == 0:
            self.bench.cpu.stop()
        return True

    def ask(self, every: int) -> Callable[[], None]:
        def start() -> None:
            self.calls, self.every = 0, every

        return start


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("hook", ["CODE", "MEM_WRITE"])
def test_a_stop_at_every_distance(mode: Mode, hook: str) -> None:
    """Asked for after so many instructions, or stores, and then again and again: it comes before the next block. Also asked for in front
    of every single one, it comes before every block that has one."""
    bench = Bench()
    blocks = _blocks(Bench(), mode)
    asker = Asker(bench, getattr(uc_const, f"UC_HOOK_{hook}"))
    unstopped, none = _run(bench, mode, asker.ask(0))
    calls = asker.calls
    assert not none and calls > 20 * ROUNDS
    assert struct.unpack_from("<H", unstopped[-1], DATA)[0] == 0x0100 + ROUNDS, "the program counts"
    for every in range(1, calls):
        stopped, stops = _run(bench, mode, asker.ask(every))
        assert stopped == unstopped, f"stopped every {every}"
        assert stops <= calls // every and (stops or 2 * every > calls)  # one that is asked for in front of the exit comes too late
        if every == 1:
            assert stops == blocks if hook == "CODE" else stops > blocks // 3


def _blocks(bench: Bench, mode: Mode) -> int:
    """How many blocks of the program run, but for the first and the one that exits."""
    stops = 0

    def step() -> None:
        bench.cpu.stop_at(bench.cpu.executed + 1)

    mode.begin(bench)
    step()
    while bench.cpu.run().kind is ExitKind.INTERRUPTED:
        stops += 1
        step()
    bench.cpu.stop_at(FOREVER)
    return stops


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_limit_at_every_distance(mode: Mode) -> None:
    """After so many instructions the CPU stops before the next block, and no block is longer than the program's longest."""
    bench = Bench()
    unstopped, _ = _run(bench, mode)
    executed = unstopped[-2]
    assert isinstance(executed, int)
    for limit in range(1, executed):
        begun = bench.cpu.executed
        mode.begin(bench)
        bench.cpu.stop_at(begun + limit)
        exit_ = bench.cpu.run()
        if exit_.kind is not ExitKind.CPUID:
            assert exit_.kind is ExitKind.INTERRUPTED and limit <= bench.cpu.executed - begun < limit + LONGEST_BLOCK
            bench.cpu.stop_at(FOREVER)
            assert bench.cpu.run().kind is ExitKind.CPUID
        assert bench.cpu.executed - begun == executed


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_instruction_is_counted(mode: Mode) -> None:
    """As a hook before each sees them, but for those by which the guest is entered; each time round of REP is one."""
    bench = Bench()
    asker = Asker(bench, uc_const.UC_HOOK_CODE)
    ran, _ = _run(bench, mode, asker.ask(0))
    assert ran[-2] == asker.calls - WAY_IN


# inc eax; mov ecx, [rbx] or inc ecx; inc eax; cpuid: with memory, without, and with an instruction that is no code
@pytest.mark.parametrize(("code", "begun"), [("ffc0 8b0b ffc0 0fa2", 2), ("ffc0 ffc1 ffc0 0fa2", 4), ("ffc0 66660f1f440000 0f0b 0fa2", 3)])
def test_an_exit_within_a_block_counts_what_has_begun(code: str, begun: int) -> None:
    bench = Bench()
    state = bench.state(code)
    state.gpr[Reg.RBX] = 0x7FFF_0000_0000
    bench.cpu.set_state(state)
    bench.cpu.set_controls(CONTROLS)
    before = bench.cpu.executed
    bench.cpu.run()
    assert bench.cpu.executed - before == begun
    bench.cpu.run()  # the same exit, in front of a block of its own
    assert bench.cpu.executed - before == begun + 1


def test_code_that_changes_the_block_it_stands_in() -> None:
    """The CPU leaves the block there, and does the store in one of its own: it has begun twice, and nothing behind it has before it ran."""
    bench = Bench()
    state = bench.state("ffc0 c60502000000f8 ffc0 90 ffc0 0fa2")  # inc eax; mov byte [the nop], clc; inc eax; nop; inc eax; cpuid
    state.gpr[Reg.RAX] = 0
    for _ in range(2):
        bench.cpu.set_state(state)
        bench.cpu.set_controls(CONTROLS)
        before = bench.cpu.executed
        assert bench.cpu.run().kind is ExitKind.CPUID
        assert bench.cpu.state().gpr[Reg.RAX] == 3
        assert bench.cpu.executed - before == 7


def test_a_stop_asked_for_while_the_cpu_is_not_running_comes_before_the_first_instruction() -> None:
    """Not in the two instructions by which it enters the guest, where it would find its own registers."""
    bench = Bench()
    for _ in range(2):
        bench.cpu.set_state(bench.state("4801c1 0fa2"))
        bench.cpu.set_controls(CONTROLS)
        before = bench.cpu.state()
        for _ in range(2):  # by VMRUN, then in place
            bench.cpu.stop()
            assert bench.cpu.run().kind is ExitKind.INTERRUPTED
            after = bench.cpu.state()
            assert (after.rip, after.gpr, after.system) == (before.rip, before.gpr, before.system)
        assert bench.cpu.run().kind is ExitKind.CPUID


def test_a_stop_that_meets_an_exit_is_kept() -> None:
    bench = Bench()
    asker = Asker(bench, uc_const.UC_HOOK_CODE)
    bench.cpu.set_state(bench.state("0fa2 90"))
    bench.cpu.set_controls(CONTROLS)
    asker.every = 3  # the third hooked instruction, after the two that enter the guest, is CPUID
    assert bench.cpu.run().kind is ExitKind.CPUID
    asker.every = 0
    assert bench.cpu.run().kind is ExitKind.INTERRUPTED
    assert bench.cpu.run().kind is ExitKind.CPUID


def test_stops_from_another_thread() -> None:
    """A loop that adds, stores, pushes and calls comes out right under stops at any moment."""
    bench = Bench()
    # mov ecx, 3000000; again: inc [rdi]; push rcx; call f; pop rdx; cmp rdx, rcx; jne bad; dec ecx; jnz again; bad: cpuid
    # f: inc [rdi+8]; ret
    bench.cpu.set_state(bench.state("b9c0c62d00 48ff07 51 e80c000000 5a 4839ca 7504 ffc9 75ee 0fa2 48ff4708 c3"))
    bench.cpu.set_controls(CONTROLS)
    bench.ram[DATA : DATA + 16] = bytes(16)
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.0001):
            bench.cpu.stop()

    thread = threading.Thread(target=ask)
    thread.start()
    stops = 0
    while (exit_ := bench.cpu.run()).kind is ExitKind.INTERRUPTED:
        stops += 1
    over.set()
    thread.join()
    assert exit_.kind is ExitKind.CPUID and stops
    assert struct.unpack_from("<QQ", bench.ram, DATA) == (3_000_000, 3_000_000)
    assert bench.cpu.state().gpr[Reg.RCX] == 0


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed: cannot build the programs again")
@pytest.mark.parametrize("bits", PROGRAMS)
def test_the_programs_are_what_their_source_builds(bits: int, tmp_path: Path) -> None:
    built = tmp_path / "program"
    subprocess.run(["nasm", "-f", "bin", "-Werror", f"-DBITS={bits}", "-o", str(built), str(SOURCE)], check=True)
    assert built.read_bytes().hex() == PROGRAMS[bits]


class PortsThatAsk(Ports):
    """Note how many instructions have begun at each access, and ask for a stop at writes."""

    def __init__(self, cpu: UnicornCpu) -> None:
        super().__init__()
        self.cpu, self.executed = cpu, [cpu.executed]

    def read(self, port: int, size: int) -> int:
        self.executed.append(self.cpu.executed)
        return super().read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        self.executed.append(self.cpu.executed)
        self.cpu.stop()


def test_a_stop_asked_for_at_a_port_comes_behind_it() -> None:
    """In the midst of a block, where the instructions before it have been counted and no others."""
    bench = Bench()
    ports = bench.cpu._ports = PortsThatAsk(bench.cpu)
    bench.cpu.set_state(bench.state("ffc0 e480 ffc0 e680 e680 ffc0 e480 0fa2"))  # inc eax; in; inc; out; out; inc; in; cpuid
    bench.cpu.set_controls(CONTROLS)
    for behind in (CODE + 8, CODE + 10):
        assert bench.cpu.run().kind is ExitKind.INTERRUPTED
        assert bench.cpu.state().rip == behind
        assert bench.cpu.executed == ports.executed[-1]
    assert bench.cpu.run().kind is ExitKind.CPUID
    first = ports.executed[0]
    assert [executed - first for executed in ports.executed[1:]] == [2, 4, 5, 7] and bench.cpu.executed - first == 8


def test_more_ports_than_are_watched_one_by_one() -> None:
    """All instructions are, from then on; the count is the same."""
    bench = Bench()
    ports = bench.cpu._ports = PortsThatAsk(bench.cpu)
    state = bench.state("e480 ffc1" * 300 + "e680 ffc1 0fa2")  # in al, 80h; inc ecx; ... out 80h, al; inc ecx; cpuid
    for _ in range(2):
        first = bench.cpu.executed
        ports.executed.clear()
        bench.cpu.set_state(state)
        bench.cpu.set_controls(CONTROLS)
        assert bench.cpu.run().kind is ExitKind.INTERRUPTED
        assert bench.cpu.state().rip == CODE + 4 * 300 + 2
        assert bench.cpu.run().kind is ExitKind.CPUID
        assert [executed - first for executed in ports.executed] == list(range(1, 603, 2))
        assert bench.cpu.executed - first == 603


def test_a_port_in_code_that_is_not_there() -> None:
    """A byte that would be IN, if code began there, is none."""
    bench = Bench()
    bench.cpu.set_state(bench.state("b8ece4edef ffc0 0fa2"))  # mov eax, 0efede4ech; inc eax; cpuid
    bench.cpu.set_controls(CONTROLS)
    before = bench.cpu.executed
    assert bench.cpu.run().kind is ExitKind.CPUID
    assert bench.cpu.executed - before == 3 and not bench.cpu._host.blocks.watched
