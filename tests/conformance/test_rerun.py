# SPDX-License-Identifier: GPL-2.0-only
"""The captures' guests, run as code on the machine, do what they did on the real kernel; and what differs is seen."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from designs import every_design, special_designs

from shadowmmu.captures.capture import Capture, Guest
from shadowmmu.captures.find import find
from shadowmmu.captures.load import save
from shadowmmu.captures.validate import AGED
from shadowmmu.check.rerun.captured_cpu import ACCESSED_PDPTE, CLASSES, NESTED_ACCESSED, PLAIN_SECOND, RESERVED_WITHOUT_P, CapturedCpu
from shadowmmu.check.rerun.kernel_stream import Stream
from shadowmmu.check.rerun.memory import EmulatorMemory
from shadowmmu.check.rerun.pdptes import Pdptes
from shadowmmu.check.rerun.rerun import Rerun, not_rerun, rerun
from shadowmmu.check.rerun.result import RerunResult
from shadowmmu.check.rerun.script import Script
from shadowmmu.check.rerun.vmm import PORTS
from shadowmmu.cli.main import call
from shadowmmu.errors import BadInput
from shadowmmu.machine.exits import emulated_access
from shadowmmu.machine.loop import vcpu_loop
from shadowmmu.machine.loop.injection import Injection
from shadowmmu.machine.memory.linear_memory import GuestMemory
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.trace import events as e
from shadowmmu.trace.events import Marker
from shadowmmu.trace.text import to_text

SETS = ("shadow", "late", "p57", "shadow_npt1_tdp0", "extra", "nested", "nested_la57", "nested_tdp0", "nestedsp")
RANDOM_SETS = (
    "random", "random_la57", "random_modes", "random_modes_la57", "random_nested", "random_nested_tdp0", "random_nestedsp",
)  # fmt: skip
CPU_CORNERS = ("edges/pae_bits", "every_nx/p32_every500", "whole_nestedsp/s32_wholepae_4000", "whole_nested_nx_tdp0", "whole_nested_la57")
"""A fault in an injection; SMAP and a fetch; code that changes itself at the end of a page; NX, and five levels, in nested tables."""
BASIC, MMIO, PERM, DIRTY, CTL = "shadow/p32_basic", "shadow/p64_mmio", "shadow/pae_perm", "shadow/p64_dirty", "shadow/p64_ctl"


def load(name: str) -> Capture:
    return find(name)[0].load()


def of_sets(*sets: str) -> list[object]:
    return [pytest.param(found, id=found.name) for name in sets for found in find(name)]


def length(stream: Stream) -> int:
    """How many events the kernel has."""
    count = 0
    while segment := stream.next_segment():
        count += len(segment)
    return count


def told(result: RerunResult) -> str:
    found = result.divergence
    if found is None:
        return ", ".join(result.bugs)
    rows = [f"{'>' if r.differs else ' '} {r.kernel and to_text(r.kernel)} | {r.engine and to_text(r.engine)}" for r in found.rows]
    return "\n".join((result.capture, found.what, found.operation, *rows))


# --- all captures


@pytest.mark.parametrize("found", of_sets(*SETS, *RANDOM_SETS, *CPU_CORNERS))
def test_reruns(found):
    capture = found.load()
    assert not not_rerun(capture)
    result = rerun(capture)
    assert result.ok, told(result)
    assert result.events == length(Stream(capture, guest_view=False)) > 20
    assert result.said == sum(isinstance(event, e.Marker) and event.text.startswith("G ") for event in capture.events)
    if not capture.setup.tdp_mmu:
        assert result.dumps == sum(bool(dump.root) for dump in capture.dumps)
    assert result.dumps


@special_designs
@pytest.mark.parametrize("found", of_sets(*SETS))
def test_reruns_on_special_roots(found, roots):
    capture = found.load()
    result = rerun(capture, roots)
    assert result.ok, told(result)
    assert result.said == sum(isinstance(event, e.Marker) and event.text.startswith("G ") for event in capture.events)


def test_much_is_compared():
    results = [rerun(found.load()) for found in find("shadow")]
    assert sum(result.events for result in results) > 12_000
    assert sum(result.dump_entries for result in results) > 14_000
    assert sum(result.counters for result in results) > 900
    differing = Counter[str]()
    for result in results:
        differing.update(result.explained)
    assert set(differing) == {RESERVED_WITHOUT_P}
    assert sum(not result.explained for result in results) == 33


def test_the_classes_of_differences():
    """No more than these, and each where it belongs."""
    by_set = {name: Counter[str]() for name in (*SETS, "edges/pae_bits")}
    for name in by_set:
        for found in find(name):
            by_set[name].update(rerun(found.load()).explained)
    assert {name for name, found in by_set.items() if NESTED_ACCESSED in found} == {"shadow_npt1_tdp0", "nested", "nested_tdp0"}
    marked = {name for name, found in by_set.items() if ACCESSED_PDPTE in found}
    assert marked == {"shadow_npt1_tdp0", "nested", "nested_la57", "nested_tdp0"}
    assert {name for name, found in by_set.items() if PLAIN_SECOND in found} == {"edges/pae_bits"}
    assert set().union(*by_set.values()) == set(CLASSES)


def test_the_document_tells_each_class():
    rows = re.findall(r"^\| ([^|]+) \|", (Path(__file__).parents[2] / "docs" / "rerun.md").read_text(), flags=re.M)
    assert set(CLASSES) <= {row.strip() for row in rows}


def untold(capture: Capture) -> Capture:
    """As an older kit's VMM left it: where the second vCPU begins nothing tells."""
    told = [event.text if isinstance(event, Marker) else "" for event in capture.events]
    _, second = (at for at, text in enumerate(told) if text.startswith("H set_sregs"))
    return changed(capture, second, text=told[second].split(" rip=")[0])


def test_what_is_not_told_is_not_run():
    capture = load("two_roots/p32_shared")
    assert not_rerun(untold(capture)).startswith("its VMM, an older kit's") and not not_rerun(capture)


def test_what_the_host_ages_it_ages_here():
    """DAMON of 7.3 takes the A bits of pages in use: the dumps behind it show it, here too, and not without it."""
    capture = find(str(Path(__file__).parent / "special_kernel_7_3/random_special/p32_random9501.capture"))[0].load()
    assert rerun(capture).ok
    unaged = [event for event in capture.events if not (isinstance(event, e.Other) and event.ev == AGED)]
    assert len(unaged) < len(capture.events)
    found = rerun(msgspec.structs.replace(capture, events=unaged)).divergence
    assert found is not None and found.what.startswith("dump ")


# --- what differs is seen


def behind_entry(capture: Capture, kind: type, number: int = 0) -> int:
    """Index of an event of a kind behind the first guest entry."""
    start = next(i for i, event in enumerate(capture.events) if isinstance(event, e.VmEntry))
    return [i for i, event in enumerate(capture.events) if i > start and isinstance(event, kind)][number]


def changed(capture: Capture, index: int, **fields: object) -> Capture:
    events = list(capture.events)
    events[index] = msgspec.structs.replace(events[index], **fields)
    return msgspec.structs.replace(capture, events=events)


def diverges(capture: Capture, index: int, said: str, roots: str = "legacy") -> None:
    found = rerun(capture, roots).divergence
    assert found is not None, "nothing was found"
    assert said in found.what
    assert found.index == index
    assert found.operation


@pytest.mark.parametrize(
    ("kind", "field", "change"),
    [
        (e.PageFault, "guest_rip", lambda v: v + 1),
        (e.PageFault, "error_code", lambda v: v ^ 2),
        (e.MmuPageFault, "addr", lambda v: v + 0x1000),
        (e.MmuPageFaultRet, "ret", lambda v: 0),
        (e.Walk, "pferr", lambda v: v ^ 1),
        (e.PagingElement, "pte", lambda v: v ^ 0x20),
        (e.SetDirtyBit, "gpa", lambda v: v + 4),
        (e.WalkerError, "pferr", lambda v: v ^ 1),
        (e.GetPage, "role", lambda v: v ^ 0x2000),
        (e.GetPage, "created", lambda v: not v),
        (e.SetSpte, "spte", lambda v: v ^ 0x20),
        (e.SetSpte, "sptep", lambda v: v + 8),
        (e.SpteRequested, "pfn", lambda v: v + 1),
        (e.UnsyncPage, "gfn", lambda v: v + 1),
        (e.SyncPage, "unsync", lambda v: not v),
        (e.Invlpg, "gva", lambda v: v + 0x1000),
        (e.InvalidateGva, "gva", lambda v: v + 0x1000),
        (e.UnprotectPage, "gfn", lambda v: v + 1),
        (e.InjException, "error_code", lambda v: v ^ 1),
        (e.InjException, "reinjected", lambda v: 1 - v),
    ],
)
def test_a_changed_field(kind, field, change):
    capture = load(BASIC)
    index = behind_entry(capture, kind)
    value = change(getattr(capture.events[index], field))
    diverges(changed(capture, index, **{field: value}), index, f"{kind.__struct_config__.tag} differs in {field}")


@pytest.mark.parametrize("kind", [e.Walk, e.SetSpte, e.GetPage, e.PageFault, e.InjException, e.UnprotectPage, e.SyncPage, e.SyncRoots])
def test_a_missing_event(kind):
    capture = load(BASIC)
    index = behind_entry(capture, kind)
    events = capture.events[:index] + capture.events[index + 1 :]
    found = rerun(msgspec.structs.replace(capture, events=events)).divergence
    assert found is not None
    assert "the machine" in found.what or "differs in" in found.what


def test_a_surplus_event():
    capture = load(BASIC)
    index = behind_entry(capture, e.SetSpte, 3)
    events = [*capture.events[: index + 1], capture.events[index], *capture.events[index + 1 :]]
    diverges(msgspec.structs.replace(capture, events=events), index + 1, "the kernel does kvm_mmu_set_spte, the machine")


@every_design
def test_a_value_that_the_guest_read(roots):
    capture = load(BASIC)
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Marker) and " val=da7a0000" in event.text)
    text = capture.events[index].text.replace("da7a0000", "da7a0001")
    diverges(changed(capture, index, text=text), index, "print differs in text", roots)


def test_an_exit():
    capture = load(CTL)
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Exit) and event.exit_reason == 0x13)
    diverges(changed(capture, index, guest_rip=capture.events[index].guest_rip + 1), index, "kvm_exit differs in guest_rip")


def test_an_exit_given_to_l1():
    capture = load("nested_tdp0/n32_basic")
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.NestedVmexitInject) and event.exit_code == 0x400)
    event = capture.events[index]
    diverges(changed(capture, index, exit_info1=event.exit_info1 ^ 2), index, "kvm_nested_vmexit_inject differs in exit_info1")


def test_a_shadow_page_of_l2_beside_the_tdp_mmu():
    capture = load("nested/n64_basic")
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.GetPage) and event.role & 1 << 17)
    diverges(changed(capture, index, gfn=capture.events[index].gfn + 1), index, "kvm_mmu_get_page differs in gfn")


def test_a_dirty_page():
    capture = load(DIRTY)
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Marker) and event.text.startswith("H dirty gfn"))
    diverges(changed(capture, index, text="H dirty gfn=3fff"), index, "print differs in text")


def test_an_accessed_bit_in_a_dump():
    capture = load(BASIC)
    dump = next(dump for dump in capture.dumps if dump.tag == "final")
    at, entry = next((i, entry) for i, entry in enumerate(dump.entries) if entry.level == 1 and entry.value & 0x20)
    entries = list(dump.entries)
    entries[at] = msgspec.structs.replace(entry, value=entry.value ^ 0x20)
    dumps = [msgspec.structs.replace(d, entries=entries) if d is dump else d for d in capture.dumps]
    found = rerun(msgspec.structs.replace(capture, dumps=dumps)).divergence
    assert found is not None and found.what.startswith("dump final: level 1 entry")


def test_a_counter():
    capture = load(BASIC)
    final = capture.counters[-1]
    counters = [*capture.counters[:-1], msgspec.structs.replace(final, values=final.values | {"pf_fixed": 1})]
    found = rerun(msgspec.structs.replace(capture, counters=counters)).divergence
    assert found is not None and found.what.startswith("counters at final: pf_fixed 1 in the kernel")


def test_another_guest():
    """One bit of the guest's own tables makes the whole run another one."""
    capture = load(BASIC)
    image = [(gpa, bytearray(data)) for gpa, data in capture.image]
    tables = next(data for gpa, data in image if gpa <= 0x1A000 < gpa + len(data))
    tables[0x1A000 - 0x18000] ^= 2
    found = rerun(msgspec.structs.replace(capture, image=[(gpa, bytes(data)) for gpa, data in image])).divergence
    assert found is not None and "kvm_mmu_paging_element differs in pte" in found.what


def test_a_longer_programme_than_the_kernel_ran():
    capture = load(BASIC)
    index = behind_entry(capture, e.Marker, 20)
    found = rerun(msgspec.structs.replace(capture, events=[*capture.events[:index], e.Marker(text="H closing")])).divergence
    assert found is not None and "the kernel does not" in found.what


# --- a machine that breaks a rule is seen


def plain_run(cpu, _fetcher):
    return cpu.run()


@pytest.mark.parametrize(
    ("name", "place", "attribute", "broken"),
    [
        (MMIO, CapturedCpu, "error_code", lambda _cpu, code: code),
        (MMIO, EmulatorMemory, "translate", GuestMemory.translate),
        ("late/p64_late", EmulatorMemory, "locate", GuestMemory.locate),
        ("edges/p32_stores1", emulated_access, "writes_tables", lambda _instruction: True),
        ("edges/pae_stores0", EmulatorMemory, "locate_change", GuestMemory.locate_change),
        ("shadow/p64_smep", Processor, "look_from", lambda processor, _state: setattr(processor.vcpu, "ac", True)),
        ("random_modes/p32_modes1", vcpu_loop, "run_exactly", plain_run),
        ("random/p32_rnd0", Injection, "reenter", lambda injection: injection._enter()),
        ("nested_tdp0/n64_basic", EmulatorMemory, "store_physical", GuestMemory.store_physical),
        ("nested_tdp0/npae_basic", Pdptes, "entered", lambda _pdptes, _rip: None),
    ],
)
def test_a_broken_machine(monkeypatch, name, place, attribute, broken):
    monkeypatch.setattr(place, attribute, broken)
    assert rerun(load(name)).divergence is not None


def test_a_guest_that_goes_on(monkeypatch):
    monkeypatch.setattr("shadowmmu.check.rerun.rerun.MOST_EXITS", 20)
    found = rerun(load(BASIC)).divergence
    assert found is not None and found.what.startswith("the guest goes on after 21 exits")


def test_a_guest_that_does_not_exit_is_stopped_by_what_it_has_done(monkeypatch):
    """Its second operation is a jump to itself. No clock is asked."""
    monkeypatch.setattr("shadowmmu.check.rerun.rerun.PATIENCE", 10_000)
    capture = load(BASIC)
    at = capture.guest.ops[1].rip
    image = [(gpa, bytearray(data)) for gpa, data in capture.image]
    code, start = next((data, gpa) for gpa, data in image if gpa <= at < gpa + len(data))
    code[at - start : at - start + 2] = b"\xeb\xfe"
    found = rerun(msgspec.structs.replace(capture, image=[(gpa, bytes(data)) for gpa, data in image])).divergence
    assert found is not None and found.what == "the guest has done 10000 instructions without an exit, where the kernel's has ended"


# --- the host script


def test_script_commands():
    one = Script(load(BASIC).guest)
    marks = [
        one.mark(c) for c in ("flags 3 1", "delslot 3", "addslot 3", "move 2 2020000", "readd 2 2", "madvise 2000000 1000", "nrpages 64")
    ]
    assert [mark.action for mark in marks] == ["slot"] * 5 + ["madvise_dontneed", "set_nr_mmu_pages"]
    assert [mark["size"] for mark in marks[:3]] == [0x10000, 0, 0x10000]
    assert marks[2]["flags"] == 1
    assert (marks[4]["gpa"], marks[4]["flags"]) == (0x2020000, 2)
    assert marks[6].number == 64
    made, poked, registers = (
        one.mark(c) for c in ("slot 6 0 6200000 400000 huge", "poke 18008 4 19007", "state mode=32 cr0=0x11 rip=0x8000")
    )
    assert (made["id"], made["gpa"], made["size"], one.slots[6].backing) == (6, 0x6200000, 0x400000, "huge")
    assert (poked["gpa"], poked["len"], poked["val"]) == (0x18008, 4, 0x19007)
    assert registers.fields == {"mode": 32, "cr0": 0x11, "rip": 0x8000}


@pytest.mark.parametrize(
    ("command", "said"), [("dance 3", "is not known"), ("madvise x 1000", "makes no sense"), ("delslot 9", "makes no sense")]
)
def test_a_script_that_makes_no_sense(command, said):
    with pytest.raises(BadInput, match=f"p32_basic: its host script has '{command}', which {said}"):
        Script(load(BASIC).guest).mark(command)


def test_every_port_of_the_guests_is_known():
    used = {
        event.fields["port"] for found in find("random_modes/*0") for event in found.load().events if getattr(event, "ev", "") == "kvm_pio"
    }
    assert used and used <= set(PORTS)


def test_the_guest_is_the_captures():
    guest = load(BASIC).guest
    assert isinstance(guest, Guest)
    run = Rerun(load(BASIC))
    state = run.vmm.cpu.state()
    assert (state.rip, state.cpl, state.cs.selector) == (guest.entry_state["rip"], 0, 8)


# --- the verb


def test_the_verb(capsys):
    assert call(["rerun", BASIC]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 guests do here what they did on the real kernel" in out
    assert call(["rerun", "shadow/p32_mmio", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["explained"][RESERVED_WITHOUT_P] == 5 and result["divergence"] is None


def test_the_verb_shows_a_divergence(capsys, monkeypatch):
    monkeypatch.setattr(CapturedCpu, "error_code", lambda _cpu, code: code)
    assert call(["rerun", "shadow/p32_mmio"]) == 1
    out = capsys.readouterr().out
    assert "kvm_page_fault differs in error_code" in out
    assert "again: shadowmmu rerun shadow/p32_mmio --roots legacy" in out


def test_the_verb_refuses_what_it_cannot_run(tmp_path, capsys):
    save(untold(load("two_roots/p32_shared")), tmp_path / "p32_shared.capture")
    assert call(["rerun", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("shadowmmu: ") and "p32_shared cannot be rerun: its VMM, an older kit's, does not tell where" in said
    assert "shadowmmu replay" in said
