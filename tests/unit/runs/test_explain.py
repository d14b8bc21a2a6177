# SPDX-License-Identifier: GPL-2.0-only
"""What a trace is said to tell: nothing wrong of a real one, and what was planted in it."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowmmu.captures.load import load
from shadowmmu.cli.main import call
from shadowmmu.errors import BadInput
from shadowmmu.runs.explained.explain import Explainer
from shadowmmu.runs.explained.explanation import Explanation
from shadowmmu.runs.explained.faults import GUESTS_OWN, L1S_OWN, NOTHING
from shadowmmu.runs.explained.source import count_file, explain_file
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.ftrace.guess import said
from shadowmmu.trace.ftrace.lines import NOBODY
from shadowmmu.trace.ftrace.reader import Told

CONFORMANCE = Path(__file__).parents[2] / "conformance"
TOOLS = sorted((CONFORMANCE / "texts").glob("*.xz"))
TEXTS = [path for path in TOOLS if ".tracefs." in path.name]
CAPTURES = sorted((CONFORMANCE / "captures").glob("*/*.capture"))[::9]


def told(events: list[AnyEvent]) -> Explanation:
    explainer = Explainer(said((6, 1)))
    for number, event in enumerate(events, 1):
        explainer.told(Told(number, event.name, event, NOBODY, "role="))
    return explainer.explanation()


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name.partition(".txt")[0])
def test_real_texts_are_read_whole_and_contradict_nothing(path: Path) -> None:
    told = explain_file(path)
    assert told.unread == told.anomaly_count == told.lost == 0 and told.faults >= 10
    assert sum(told.names.values()) == told.events == sum(rule.count for rule in told.rules)
    assert sum(path.count for path in told.paths) == told.faults


def test_each_tool_tells_the_same() -> None:
    """One guest under trace-cmd and perf at a time, in the captured kernel: call chains, plugins and raw fields change nothing."""
    told = {path.name.split(".")[1]: explain_file(path) for path in TOOLS if path.name.startswith("p32_slots.")}
    assert told.keys() == {"tracefs", "report", "raw", "perf", "perf-g"}
    for other in told.values():
        for same in ("faults", "vcpus", "gaps"):
            assert getattr(other, same) == getattr(told["tracefs"], same)
        assert [(path.outcome, path.path, path.count) for path in other.paths] == [
            (path.outcome, path.path, path.count) for path in told["tracefs"].paths
        ]
        mmu = {name: count for name, count in other.names.items() if name.startswith("kvm_mmu_") or "mmio" in name}
        assert mmu == {name: count for name, count in told["tracefs"].names.items() if name in mmu} and len(mmu) >= 7
    assert told["perf-g"].lines > 10 * told["perf"].lines and told["perf-g"].events == told["perf"].events
    assert {role.words for role in told["raw"].roles} == {role.words for role in told["perf"].roles}
    assert told["report"].hidden and not told["raw"].hidden


def test_rights_of_four_bits_are_known_by_a_new_page_that_seems_invalid() -> None:
    """The plugin, and whoever reads the word as before, take execute for `invalid`, and all behind it for its neighbour."""
    told = [explain_file(path) for path in TOOLS if path.name.startswith("linux_7_3")]
    assert len(told) == 2 and all(one.kernel == "7.2 to 7.3" for one in told)
    words = [[(role.words, role.count) for role in one.roles] for one in told]
    assert words[0] == words[1] and ("l1 4-byte q0 wux efer_nx cr0_wp", 10) in words[0]


def test_where_faults_are_told_a_walk_of_the_emulators_is_none() -> None:
    exit_ = "kvm_exit: vcpu 0 reason io rip 0x8005 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0\n"
    walk = "kvm_mmu_pagetable_walk: addr 8000 pferr 10 F\nkvm_mmu_paging_element: pte 8027 level 1\n"
    fault = "kvm_page_fault: vcpu 0 rip 0x8000 address 0x8000 error_code 0x10\n"
    entry = "kvm_entry: vcpu 0, rip 0x8007\n"
    assert explain_text((exit_ + fault + walk + entry) + 3 * (exit_ + walk + entry)).faults == 1
    assert explain_text(3 * walk).faults == 3


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_captures_contradict_nothing(path: Path) -> None:
    told = explain_file(path)
    assert told.anomalies == []


def events() -> list[AnyEvent]:
    return list(load(CONFORMANCE / "captures" / "shadow" / "p32_flood.capture").events)


def first(kind: type, of: Callable[[AnyEvent], bool] = lambda _: True) -> Callable[[list[AnyEvent]], int]:
    return lambda events: next(at for at, event in enumerate(events) if isinstance(event, kind) and of(event))


def made_again(events: list[AnyEvent]) -> int:
    """The zap of a page that is made again later, in the same generation."""
    made = {(one.gfn, one.role): at for at, one in enumerate(events) if isinstance(one, e.GetPage) and one.created}
    return next(at for at, one in enumerate(events) if isinstance(one, e.PrepareZapPage) and made.get((one.gfn, one.role), 0) > at)


PLANTED = {
    "a page's birth dropped": (first(e.GetPage, lambda one: one.created), None),
    "a zap dropped": (made_again, None),
    "a step of a walk dropped": (first(e.PagingElement, lambda one: one.level == 1), "swap"),
    "an entry to the guest dropped": (first(e.VmEntry), None),
    "a role altered": (first(e.GetPage, lambda one: one.created), "role"),
    "no such role": (first(e.GetPage), "level"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_was_planted_is_found(what: str) -> None:
    find, how = PLANTED[what]
    changed = events()
    assert not told(changed).anomalies
    at = find(changed)
    event = changed[at]
    if how is None:
        del changed[at]
    elif how == "swap":
        changed[at - 1], changed[at] = changed[at], changed[at - 1]
    else:
        role = event.role ^ 0x400 if how == "role" else event.role | 15
        changed[at] = type(event)(**{name: role if name == "role" else getattr(event, name) for name in event.__struct_fields__})
    assert told(changed).anomaly_count


def drop(lines: list[str], at: int) -> None:
    del lines[at]


def swap(lines: list[str], at: int) -> None:
    lines[at], lines[at + 1] = lines[at + 1], lines[at]


def swap_behind_fronts(lines: list[str], at: int) -> None:
    """What two lines tell, each at the time of the other."""
    (front, text), (next_front, next_text) = (line.split(": ", 1) for line in lines[at : at + 2])
    lines[at : at + 2] = f"{front}: {next_text}", f"{next_front}: {text}"


def other_rights(lines: list[str], at: int) -> None:
    """A page's role, with other rights than it had."""
    lines[at] = re.sub(r" ([-w])([-u])([-x]) ", lambda rights: f" {'-' if rights[1] == 'w' else 'w'}{rights[2]}{rights[3]} ", lines[at])


def other_level(lines: list[str], at: int) -> None:
    lines[at] = re.sub(r" l(\d) ", lambda level: f" l{int(level[1]) % 4 + 1} ", lines[at])


def other_quadrant(lines: list[str], at: int) -> None:
    lines[at] = re.sub(r" q(\d) ", lambda quadrant: f" q{(int(quadrant[1]) + 1) % 4} ", lines[at])


def other_nx(lines: list[str], at: int) -> None:
    lines[at] = re.sub(r" (!?)nxe ", lambda nx: " nxe " if nx[1] else " !nxe ", lines[at])


PAGES = ("kvm_mmu_get_page", "kvm_mmu_prepare_zap_page", "kvm_mmu_sync_page", "kvm_mmu_unsync_page")
BITS = ("kvm_mmu_set_accessed_bit", "kvm_mmu_set_dirty_bit")
SEEN_BY_ORDER = (
    "kvm_entry", "kvm_exit", "kvm_page_fault", "mmu_page_fault", "mmu_page_fault_ret", "kvm_mmu_pagetable_walk", "kvm_mmu_spte_requested",
    *BITS,
)  # fmt: skip
"""Kinds of which hardly one may be missing unseen."""
LEFT = ("kvm_mmu_prepare_zap_page", "kvm_mmu_sync_page", "kvm_mmu_unsync_page")
"""Of these the texts have few."""
SET = ("kvm_mmu_set_spte",)
"""One in three is of a prefetched entry, which need not be."""
CORRUPTIONS = [
    (drop, SEEN_BY_ORDER, 0.9), (drop, LEFT, 0.85),
    (drop, ("kvm_mmu_get_page", "kvm_mmu_paging_element"), 0.7), (drop, SET, 0.65), (swap, (*SEEN_BY_ORDER, *PAGES), 0.97),
    (swap_behind_fronts, ("kvm_entry", "kvm_page_fault", "kvm_mmu_pagetable_walk", "kvm_mmu_paging_element", *BITS), 0.9),
    (other_rights, PAGES, 0.9), (other_level, PAGES, 0.9), (other_quadrant, PAGES, 0.85), (other_nx, PAGES, 0.9),
]  # fmt: skip


@pytest.mark.parametrize(("corrupt", "kinds", "least"), CORRUPTIONS, ids=lambda one: getattr(one, "__name__", None))
def test_what_is_planted_in_real_texts_is_found(corrupt: Callable[[list[str], int], None], kinds: tuple[str, ...], least: float) -> None:
    """In every one of the captured kernel's texts, all over it; roles that nothing else tells of may be taken for true."""
    found = []
    for path in TEXTS:
        lines = lzma.decompress(path.read_bytes()).decode().splitlines()
        places = [at for at, line in enumerate(lines[:-1]) if line.split(": ", 2)[1:2] and line.split(": ", 2)[1] in kinds]
        for at in places[5 :: max(1, len(places) // 16)]:
            changed = list(lines)
            corrupt(changed, at)
            assert changed != lines
            found.append(bool(explain_text("\n".join(changed)).anomaly_count))
    fewest = 40 if kinds in (LEFT, SET) else 60
    assert len(found) > fewest and sum(found) >= least * len(found), f"{sum(found)} of {len(found)}"


MMU = (
    e.Walk, e.PagingElement, e.SetAccessedBit, e.SetDirtyBit, e.WalkerError, e.GetPage, e.SyncPage, e.UnsyncPage, e.PrepareZapPage,
    e.SetSpte, e.SpteRequested, e.MarkMmioSpte, e.HandleMmioPageFault, e.CheckMmioSpte, e.FastPageFault, e.ZapAllFast, e.TdpMmuSpteChanged,
)  # fmt: skip
LOOP = (e.Exit, e.VmEntry, e.PageFault, e.EmulateInsn, e.InjException, e.Cr, e.Msr, e.NestedVmenter, e.NestedVmexit, e.NestedVmexitInject)
TRACED: dict[str, tuple[type, ...]] = {"kvmmmu": MMU, "kvmmmu and kvm": (*MMU, *LOOP), "no entries and exits": (*MMU, *LOOP[2:])}


@pytest.mark.parametrize("traced", TRACED)
@pytest.mark.parametrize("path", CAPTURES[::4], ids=lambda path: path.stem)
def test_parts_of_what_can_be_traced_contradict_nothing(path: Path, traced: str) -> None:
    """As people trace: no probes, no marks of the VMM, and not each of the kernel's events."""
    assert told([event for event in load(path).events if isinstance(event, TRACED[traced])]).anomalies == []


FAULT = (
    "kvm_exit: vcpu 0 reason PF excp rip 0x1 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0",
    "kvm_page_fault: vcpu 0 rip 0x1 address 0x0000000000405000 error_code {code}",
    "kvm_mmu_pagetable_walk: addr 405000 pferr 2 W", "kvm_mmu_paging_element: pte 1b067 level 2",
    "kvm_mmu_paging_element: pte 5067 level 1",
    "kvm_mmu_spte_requested: gfn 5 pfn 2991 level 1", "kvm_mmu_set_spte: gfn 5 spte 2991e67 (rwxu) level 1 at f8bd028",
    "kvm_entry: vcpu 0, rip 0x1",
)  # fmt: skip


def faults(code: str, without: str = "", more: str = "", vcpus: int = 1) -> Explanation:
    """Two faults, the second without the lines of an event, and with more before its request."""
    second = [line for line in FAULT if not without or without not in line]
    at = next(at for at, line in enumerate(second) if "spte_requested" in line)
    lines = [*FAULT, *second[:at], *filter(None, [more]), *second[at:]]
    text = "".join(f" qemu-1 [000] .... {at}.1: {line.format(code=code)}\n" for at, line in enumerate(lines))
    first, _, rest = text.partition("\n")
    other = " qemu-2 [001] .... 0.1: kvm_entry: vcpu 1, rip 0x1\n" if vcpus == 2 else ""
    return explain_text(f"{first}\n{other}{rest}")


def test_what_the_cpu_did_not_meet_must_be_set() -> None:
    """Where there was something, or another vCPU may have set it, or a page is linked again that may hold it, it need not."""
    assert not faults("0x2").anomalies
    (missing,) = faults("0x2", "kvm_mmu_set_spte").anomalies
    assert missing.what == "an entry of gfn 5 was requested where none was, and none is set"
    page = "kvm_mmu_get_page: sp gen 0 gfn 1b l1 4-byte q1 wux nxe ad root 0 sync existing"
    assert not faults("0x3", "kvm_mmu_set_spte").anomalies and not faults("0x2", "kvm_mmu_set_spte", page).anomalies
    assert not faults("0x2", "kvm_mmu_set_spte", vcpus=2).anomalies


def test_below_a_new_page_nothing_hangs_yet() -> None:
    page = "kvm_mmu_get_page: sp gen 0 gfn 1b l{} 8-byte q0 wux nxe ad root 0 sync new"
    assert not faults("0x2", more=page.format(1)).anomalies
    (missing,) = faults("0x2", more=page.format(2)).anomalies
    assert missing.what == "a page of level 2 is made for a fault, and that of level 1 below it is missing"


def test_whose_fault_it_is_and_what_it_was_for() -> None:
    """A nested fault that L1's tables refuse is L1's; an EPT violation has no error code, whether or not its exit is told."""
    walk = "kvm_mmu_pagetable_walk: addr 10 pferr 4 U\nkvm_mmu_paging_element: pte 0 level 4\nkvm_mmu_walker_error: pferr 4 U\n"
    for code, outcome in (("0x100000004", L1S_OWN), ("0x4", GUESTS_OWN)):
        told = explain_text(f"kvm_page_fault: vcpu 0 rip 0x10 address 0x10 error_code {code}\n{walk}")
        assert told.shown[0].outcome == outcome
    told = explain_text("kvm_page_fault: address 7f8012a8 error_code 184\nkvm_mmu_spte_requested: gfn 7f801 pfn 1c2f801 level 1\n")
    assert told.shown[0].access == "fetch, not present"


def test_a_writable_leaf_over_a_shadowed_table_is_found() -> None:
    page = {"gfn": 0x41D, "role": 0x1711, "mmu_valid_gen": 0, "root_count": 0}
    leaf = e.SetSpte(gfn=0x41D, spte=0x10041D867, level=1, sptep=0)  # type: ignore[arg-type]
    made = [e.Marker(text="H create vm"), e.GetPage(**page, unsync=False, created=True)]  # type: ignore[arg-type]
    assert "is mapped writable at level 1" in told([*made, leaf]).anomalies[0].what
    unsync = e.UnsyncPage(**page, unsync=False)  # type: ignore[arg-type]
    assert not told([*made, unsync, leaf]).anomalies


def test_a_passthrough_page_protects_nothing() -> None:
    """On a 5-level host a page of level 5 stands above L1's 4-level NPT: it bears that table's gfn, and shadows nothing."""
    page = e.GetPage(gfn=0x4, role=0x63705, mmu_valid_gen=0, root_count=0, unsync=False, created=True)  # type: ignore[arg-type]
    leaf = e.SetSpte(gfn=0x4, spte=0x100004E67, level=1, sptep=0)  # type: ignore[arg-type]
    assert not told([e.Marker(text="H create vm"), page, leaf]).anomalies


def test_nothing_is_said_of_pages_from_before_the_trace_or_behind_a_gap() -> None:
    got = "kvm_mmu_get_page: sp gen 0 gfn 19 l2 8-byte q0 wux nxe ad root 0 sync existing\n"
    zap = "kvm_mmu_prepare_zap_page: sp gen 0 gfn 19 l2 8-byte q0 wux nxe ad root 0 sync\n"
    assert not explain_text(got + zap).anomalies
    assert explain_text(got + zap + got).anomalies and not explain_text(got + zap + "[...]\n" + got).anomalies
    assert not explain_text(zap + zap + got).anomalies, "of two that look alike, both from before"


def test_threads_are_told_apart_without_vcpus() -> None:
    """Two faults at a time, of two threads that say no vCPU."""
    line = " qemu-{} [000] .... 1.{}: kvm_mmu_{}\n"
    parts = ["pagetable_walk: addr 405000 pferr 2 W", "paging_element: pte 1b027 level 2", "paging_element: pte 5067 level 1"]
    told = explain_text("".join(line.format(thread, at, part) for at, part in enumerate(parts) for thread in (7, 8)))
    assert (told.faults, told.vcpus, told.anomaly_count) == (2, 2, 0)


def test_a_fault_that_comes_again_is_told_with_its_reason() -> None:
    fault = (
        " qemu-1 [000] .... {0}.1: kvm_page_fault: vcpu 0 rip 0x1 address 0x0000000000405000 error_code 0x2\n"
        " qemu-1 [000] .... {0}.2: kvm_mmu_pagetable_walk: addr 405000 pferr 2 W\n"
        " qemu-1 [000] .... {0}.3: kvm_mmu_paging_element: pte 1b027 level 2\n"
        " qemu-1 [000] .... {0}.4: kvm_mmu_paging_element: pte 5067 level 1\n"
        " qemu-1 [000] d... {0}.5: kvm_entry: vcpu 0, rip 0x1\n"
    )
    other = " qemu-1 [000] .... 99.1: kvm_mmu_spte_requested: gfn 8 pfn 2991 level 1\n"
    told = explain_text("".join(fault.format(number) for number in range(50)) + other)
    (answer,) = told.answers
    assert answer.count == 50 and "is_page_fault_stale" in answer.why and answer.address == 0x405000
    assert (told.paths[0].outcome, told.paths[0].count) == (NOTHING, 50)


def test_a_walk_of_another_mode_than_the_pages_is_told() -> None:
    told = explain_text(
        "kvm_mmu_pagetable_walk: addr 405000 pferr 2 W\nkvm_mmu_paging_element: pte 1a027 level 4\n"
        "kvm_mmu_paging_element: pte 1b027 level 3\n"
        "kvm_mmu_paging_element: pte 1c027 level 2\nkvm_mmu_paging_element: pte 5067 level 1\n"
        "kvm_mmu_get_page: sp gen 0 gfn 1c l1 4-byte q0 wux nxe ad root 0 sync new\n"
    )
    assert "a 4-level walk, and a page of role l1 4-byte" in told.answers[0].what


def test_counted_lines_have_no_order() -> None:
    told = explain_text("   70 kvm_mmu_prepare_zap_page: sp gen 0 gfn 19 l2 8-byte q0 wux nxe ad root 0 sync\n" * 2)
    assert told.names == {"kvm_mmu_prepare_zap_page": 140} and told.notes and not told.anomalies


def test_two_vms_are_told_apart() -> None:
    line = " qemu-{} [000] .... 1.0: kvm_exit: vcpu 0 reason npf rip 0x1 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0\n"
    told = explain_text(line.format(100) + line.format(200))
    assert (told.vms, told.vcpus, told.exits) == (2, 2, {"npf": 2}) and not told.anomalies


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_packed_or_not_and_counted(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    text = lzma.decompress(TEXTS[0].read_bytes())
    path = tmp_path / "trace"
    path.write_bytes(pack(text))
    assert explain_file(path).names == explain_file(TEXTS[0]).names
    counted = count_file(path)
    assert counted.names == explain_file(path).names


def test_our_own_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace"
    assert call(["run", "nonpaging", "--audit", "off", "--trace", str(path)]) == 0
    capsys.readouterr()
    assert call(["explain", str(path)]) == 0
    assert "no contradiction" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\x17\x08\x44tracing6\0", "apt install trace-cmd"), (b"nothing\n", "no event of kvm"), (b"\x1f\x8b\x08xxxxxxxxx", "pack it anew")],
)
def test_what_cannot_be_explained_is_refused(data: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    path = tmp_path / "trace"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=said):
        explain_file(path)


def explain_text(text: str) -> Explanation:
    import tempfile

    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        return explain_file(Path(file.name))


def test_without_exits_nothing_is_said_of_what_a_walk_is_for() -> None:
    told = explain_text(
        "kvm_mmu_pagetable_walk: addr 405000 pferr 2 W\nkvm_mmu_paging_element: pte 5067 level 1\n[...]\n"
        "kvm_mmu_set_spte: gfn 5 spte 600000005b67 (rwxu) level 1 at ffff888103acc008\n"
    )
    assert {rule.situation for rule in told.rules if rule.event != "kvm_mmu_paging_element"} == {"the trace does not tell for what"}


def test_a_large_page_comes_back_in_the_tdp_mmu() -> None:
    split = "kvm_tdp_mmu_spte_changed: as id 0 gfn 7f8{:02x} level 1 old_spte 0 new_spte 860000087f8{:02x}b77\n"
    large = "kvm_tdp_mmu_spte_changed: as id 0 gfn 7f800 level 2 old_spte 5a0 new_spte 860000087f800bf7\n"
    told = explain_text("".join(split.format(page, page) for page in range(8)) + large)
    assert "a large page replaces small ones of gfn 7f800 to 7f9ff" in told.answers[0].what and told.answers[0].first == 9


def test_each_way_is_told_event_by_event() -> None:
    told = explain_file(TEXTS[0])
    for path in told.paths:
        assert path.steps and path.steps[0].number == path.first and all(step.told for step in path.steps)
    assert {"__direct_map", "kvm_mmu_hugepage_adjust"} <= {step.kernel for path in told.paths for step in path.steps}


def test_functions_are_named_as_the_traced_kernel_does(tmp_path: Path) -> None:
    """By what a capture is of, what the text shows, or what is said."""

    def functions(told: Explanation) -> set[str]:
        return {rule.kernel for rule in told.rules} | {step.kernel for path in told.paths for step in path.steps}

    captures = CONFORMANCE / "captures"
    for name, stores in (("shadow/p32_flood", "kvm_mmu_pte_write"), ("linux_7_3/p32_big", "kvm_mmu_track_write")):
        found = functions(explain_file(captures / f"{name}.capture"))
        assert found & {"kvm_mmu_pte_write", "kvm_mmu_track_write"} == {stores}
    path = tmp_path / "trace"
    page = "sp gen 0 gfn 19 l2 8-byte q0 wux nxe ad root 0 sync"
    path.write_text(f"kvm_mmu_get_page: {page} new\nkvm_mmu_prepare_zap_page: {page}\nkvm_mmu_zap_all_fast: kvm-mmu-valid-gen 0\n")
    assert "kvm_mmu_zap_all_fast" in functions(explain_file(path))
    assert "kvm_mmu_invalidate_zap_all_pages" in functions(explain_file(path, said((5, 3))))


def test_raw_reasons_of_exits_are_kinds() -> None:
    told = explain_text(
        "".join(f"kvm_exit: exit_reason=0x400 guest_rip={rip:#x} isa=0x2 info1=0x1 info2=0x2 vcpu_id=0x0\n" for rip in range(9))
    )
    assert told.exits == {"exit_reason 0x400": 9}
