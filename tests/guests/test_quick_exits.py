# SPDX-License-Identifier: GPL-2.0-only
"""Exits that are served in the CPU's hook: nobody can tell the run from one in which the loop has each of them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from designs import every_design
from guest_tables import entries
from pc_program import CODE, GUEST
from poke import poke_host
from rich.console import Console
from two_runs import SOME_EXITS, check_alike, run

from shadowmmu.check.audit import Audits, audit
from shadowmmu.machine.cpu import unicorn_cpu, unicorn_raw
from shadowmmu.machine.cpu.unicorn_layout import layout
from shadowmmu.machine.exits.handlers import HANDLERS
from shadowmmu.machine.loader import Guest, load_bytes, read_guest
from shadowmmu.machine.loop.vcpu_loop import VcpuLoop
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.seam import CpuError, Exit, ExitKind
from shadowmmu.runs.guest_run import GuestRun, RunReport, Violated
from shadowmmu.view.draw_report import draw_report

GUESTS = Path(__file__).parents[2] / "guests"
ALL_EXITS = 100_000
STORM = bytes.fromhex("bf00001000 800701 81c700100000 81ff00006000 72ef f4")
"""mov edi, 100000h; again: add byte [edi], 1; add edi, 1000h; cmp edi, 600000h; jb again; hlt"""
ASKED = (0, 1, 7, 0xB, 0x40000000, 0x80000001, 0x80000002, 0x80000008, 0x12345)  # leaves of CPUID; the last is none
GROUPS = 0x500 // 8  # without paging a fault maps eight pages


@pytest.mark.parametrize("path", sorted(GUESTS.glob("*.toml")), ids=lambda path: path.stem)
def test_our_guests(path: Path) -> None:
    """By each of the ways there are."""
    guest = read_guest(path)
    slow, raw = run(guest, quick=False), run(guest, quick=True)
    check_alike(raw, slow)
    assert run(guest, quick=True, raw_state=False) == raw


@pytest.mark.parametrize("name", ["pae", "4-level", "l1-pae"])
def test_whole_tours_on_contexts_that_the_public_api_saves(name: str) -> None:
    guest = read_guest(GUESTS / f"{name}.toml")
    raw, saved = (run(guest, quick=True, raw_state=raw_state, exits=ALL_EXITS) for raw_state in (True, False))
    assert raw == saved and raw.result.passed


def test_a_cpu_whose_state_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = read_guest(GUESTS / "pae.toml")
    reports = [GuestRun(guest, "pae").run(max_exits=2000)]
    monkeypatch.setattr(unicorn_raw, "state_places", tuple)
    reports.append(GuestRun(guest, "pae").run(max_exits=2000))
    assert [report.on_raw_state for report in reports] == [True, False]
    assert "in the CPU's hook, on its raw state" in drawn(reports[0])
    assert "in the CPU's hook, on states that its public API saves" in drawn(reports[1])
    assert reports[0].in_hook == reports[1].in_hook and reports[0].counters == reports[1].counters


def test_system_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which our guest makes at the end of its tour."""
    guest = read_guest(GUESTS / "4-level.toml")
    slow = run(guest, quick=False, exits=ALL_EXITS)
    reached: list[Exit] = []
    monkeypatch.setitem(HANDLERS, ExitKind.SYSCALL, lambda _, exit_: reached.append(exit_))
    check_alike(run(guest, quick=True, exits=ALL_EXITS), slow)
    assert slow.result.passed and slow.result.exits["SYSCALL"] == 500 and not reached


@every_design
@pytest.mark.parametrize("vcpus", [1, 2, 3])
def test_a_storm_of_faults(vcpus: int, roots: str) -> None:
    """vCPUs take turns by exits: those served in the hook count."""
    guest = Guest(name="storm", image="storm", format="flat", memory_mib=8, load=0x10000, start="protected", vcpus=vcpus, end="halt")
    quick, slow = (run(guest, quick=quick, code=STORM, roots=roots, exits=1000) for quick in (True, False))
    check_alike(quick, slow)
    assert quick.result.reason is Reason.HALTED and quick.result.outcomes["fixed"] >= GROUPS
    assert quick.served > 0.8 * quick.exits


DEVICES = bytes.fromhex(
    "bf0000e0fec787f0000000ff010000b92c0100008b4720898f800000008b9f90030000c78780030000204e0000c787b000000000000000a13000e0fe890d0000"
    "c0fe668b47308a8782000000888781000000a10000d0fee2bbb010e6f4f4"
)
"""Three hundred times: local APIC and I/O APIC read and written by MOVs of four bytes, two, and one, and what nothing answers read."""


TO_ITSELF = bytes.fromhex("bf0000e0fe c787f0000000ff010000 c7870003000031410400")
"""The local APIC is turned on and sends its vCPU an interrupt, which waits: EFLAGS.IF is clear."""


@every_design
@pytest.mark.parametrize("features", [(), ("npt",)])
@pytest.mark.parametrize("before", [b"", TO_ITSELF])
def test_devices_in_memory(before: bytes, features: tuple[str, ...], roots: str) -> None:
    guest = msgspec.structs.replace(GUEST, features=features)
    quick, slow = (run(guest, quick=quick, code=before + DEVICES, roots=roots) for quick in (True, False))
    check_alike(quick, slow)
    assert quick.served > 0.6 * quick.exits


CLOCK = bytes.fromhex("b92c010000 0f31 01c3 01d6 f390 e2f6 b010e6f4f4")
"""mov ecx, 300; again: rdtsc; add ebx, eax; add esi, edx; pause; loop again; mov al, 10h; out 0f4h, al; hlt"""


@pytest.mark.parametrize("vcpus", [1, 2, 3])
def test_the_clock_and_pauses(vcpus: int) -> None:
    """What waits by PAUSE gives way to vCPUs that do not sleep; the others begin asleep."""
    guest = msgspec.structs.replace(GUEST, vcpus=vcpus)
    quick, slow = (run(guest, quick=quick, code=CLOCK) for quick in (True, False))
    check_alike(quick, slow)
    assert quick.served > 0.9 * quick.exits


def test_pauses_of_vcpus_that_all_run() -> None:
    guest = msgspec.structs.replace(GUEST, platform="bare", vcpus=3)
    quick, slow = (run(guest, quick=quick, code=CLOCK) for quick in (True, False))
    check_alike(quick, slow)
    assert 0 < quick.served < quick.exits


@every_design
def test_interrupts_that_accesses_to_devices_bring(roots: str) -> None:
    """Timers, the end of a level-triggered interrupt, and messages from one vCPU to the other."""
    quick, slow = (run(GUEST, quick=quick, code=CODE, roots=roots) for quick in (True, False))
    check_alike(quick, slow)
    assert quick.result.reason is Reason.PASSED


def test_what_a_device_raises_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(GUEST, loaded=load_bytes(GUEST, DEVICES))
    apic = machine.processors[0].apic
    assert apic is not None

    def refuse() -> None:
        raise ValueError("no end")

    monkeypatch.setattr(apic, "end_of_interrupt", refuse)
    with pytest.raises(ValueError, match="no end"):
        machine.run()


def test_cpuid() -> None:
    """Leaves that are there are told in the hook; one that is not, by the loop, which notes who asks."""
    leaves = b"".join(b"\xb8" + leaf.to_bytes(4, "little") + bytes.fromhex("31c9 0fa2 01c6 01de 01ce 01d6") for leaf in ASKED)
    code = bytes.fromhex("bd14000000") + leaves + b"\x4d\x0f\x85" + (-len(leaves) - 7).to_bytes(4, "little", signed=True) + b"\xf4"
    for platform in (
        "bare",
        "pc",
    ):  # mov ebp, 20; again: mov eax, LEAF; xor ecx, ecx; cpuid; add esi, of each; ...; dec ebp; jnz again; hlt
        guest = Guest(
            name="cpuid", image="cpuid", format="flat", load=0x10000, start="protected", memory_mib=8, end="halt", platform=platform
        )
        quick, slow = (run(guest, quick=quick, code=code, exits=1000) for quick in (True, False))
        check_alike(quick, slow)
        assert slow.result.exits["CPUID"] == 20 * len(ASKED) and quick.served >= 19 * (len(ASKED) - 2)


@pytest.mark.parametrize("exits", [1, 2, 7, 63, 64, 65, 140])
@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_run_ends_at_its_limit(exits: int, vcpus: int) -> None:
    guest = Guest(name="storm", image="storm", format="flat", memory_mib=8, load=0x10000, start="protected", vcpus=vcpus, end="halt")
    quick, slow = (run(guest, quick=quick, code=STORM, exits=exits) for quick in (True, False))
    assert quick.exits == exits and quick._replace(served=0) == slow


def test_what_the_hook_raises_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(name="storm", image="storm", format="flat", memory_mib=8, load=0x10000, start="protected", end="halt")
    machine = Machine(guest, loaded=load_bytes(guest, STORM))

    def refuse(code: int) -> Exit:
        raise CpuError(f"exit {code:#x}")

    monkeypatch.setattr(machine.processors[0].cpu, "_decode", refuse)
    with pytest.raises(CpuError, match="exit 0x"):
        machine.run()


def test_a_cpu_whose_mode_flags_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are delivered by the loop, and CS and SS loaded by VMRUN: all is the same."""
    guest = read_guest(GUESTS / "pae.toml")
    known = run(guest, quick=True, exits=2000)
    where = replace(layout(), modes_known=False)
    monkeypatch.setattr(unicorn_cpu, "layout", lambda: where)
    unknown = run(guest, quick=True, exits=2000)
    assert unknown.served < known.served
    assert unknown._replace(served=0) == known._replace(served=0)


def drawn(report: RunReport) -> str:
    console = Console(width=150)
    with console.capture() as capture:
        console.print(draw_report(report, 1.0))
    return capture.get()


@pytest.mark.parametrize("name", ["pae", "l1-pae"])
def test_a_report_tells_where_exits_were_served(name: str) -> None:
    guest = read_guest(GUESTS / f"{name}.toml")
    reports = [GuestRun(guest, name, audit=audit).run(max_exits=2000) for audit in ("off", "exit", "every")]
    assert [(report.seen_by, report.in_hook > 1000) for report in reports] == [("nobody", True), ("nobody", True), ("audit", True)]
    assert reports[2].in_hook == reports[0].in_hook and reports[2].audits == 2000
    assert all(f"{report.in_hook:,} in the CPU's hook" in drawn(report) for report in reports)
    seen = GuestRun(guest, name, on_exit=lambda *_: None).run(max_exits=2000)
    assert seen.in_hook == 0 and "2,000 in Python: who made the run looks at each" in drawn(seen)


@pytest.mark.parametrize("name", ["pae", "l1-pae"])
def test_audits_of_a_guest_find_what_thorough_ones_do(name: str) -> None:
    """Of entries that are wrong after some exits more: what is known is looked at, whatever the exits have touched."""
    run = GuestRun(read_guest(GUESTS / f"{name}.toml"), name)
    run.run(max_exits=1000)
    vm = run.machine.vm
    audits = Audits(vm, every=1000)
    assert audits() == audit(vm) == []
    for exits in (1020, 1100):
        run.run(max_exits=exits)
        assert audits() == audit(vm) == []
        for page in vm.shadow_pages()[::5]:
            for index, entry in list(enumerate(entries(vm, page)))[:: 1 + exits % 7]:
                if entry & 1:
                    poke_host(vm, page.hpa + 8 * index, entry ^ 1 << 13)
                    assert audits() == audit(vm) != []
                    poke_host(vm, page.hpa + 8 * index, entry)


def test_what_an_audit_finds_in_the_hook_ends_the_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the exit at which it would be found in Python, and the command leads there again."""
    guest = read_guest(GUESTS / "pae.toml")

    def found_at(number: int, **hooks: object) -> RunReport:
        run = GuestRun(guest, "pae", audit="every", **hooks)  # type: ignore[arg-type]
        monkeypatch.setattr(run.auditor, "_look", lambda vm, thorough: violated() if run.auditor.count == number else None)
        return run.run(max_exits=2000)

    def violated() -> None:
        raise Violated(["I5: planted"])

    for number in (700, 701, 1500):
        report, seen = found_at(number), found_at(number, on_exit=lambda *_: None)
        assert report.in_hook > 500 and seen.in_hook == 0
        assert report.violations == seen.violations == ["I5: planted"]
        assert report.exits == seen.exits == number
        assert report.reproduce == seen.reproduce and report.counters == seen.counters


FREQUENT = {
    "pae": (ExitKind.PAGE_FAULT, ExitKind.SOFTWARE_INTERRUPT, ExitKind.CR_READ, ExitKind.CR_WRITE, ExitKind.INVLPG),
    "4-level": (ExitKind.PAGE_FAULT, ExitKind.SOFTWARE_INTERRUPT, ExitKind.CR_READ, ExitKind.CR_WRITE, ExitKind.INVLPG),
    "l1-pae": (ExitKind.SVM, ExitKind.NESTED_PAGE_FAULT),
    "l1-no-npt": (ExitKind.SVM, ExitKind.PAGE_FAULT),
}


@pytest.mark.parametrize("name", FREQUENT)
def test_few_exits_of_the_frequent_kinds_reach_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    handle = VcpuLoop._handle

    def counted(loop: VcpuLoop, exit_: Exit) -> None:
        seen[exit_.kind.value] += 1
        handle(loop, exit_)

    monkeypatch.setattr(VcpuLoop, "_handle", counted)
    result = Machine(read_guest(GUESTS / f"{name}.toml")).run(max_exits=SOME_EXITS)
    for kind in FREQUENT[name]:
        assert 20 * seen[kind.value] < result.exits[kind.value], kind
    assert result.emulated > 0


def test_machines_in_two_threads_count_as_one_alone_does() -> None:
    """What is known of code that was decoded is a CPU's own."""
    names = ("pae", "4-level") * 2
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda name: run(read_guest(GUESTS / f"{name}.toml"), quick=True), names))
    for name, told in zip(names, together, strict=True):
        alone = run(read_guest(GUESTS / f"{name}.toml"), quick=True)
        assert (told.result.exits, told.ticks, told.expired) == (alone.result.exits, alone.ticks, alone.expired), name
