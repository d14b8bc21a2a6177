# SPDX-License-Identifier: GPL-2.0-only
"""A divergence names the rule of ours behind it, and the command that it prints shows the state before."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest
from designs import every_design

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.find import find
from shadowmmu.captures.load import save
from shadowmmu.check.compare.result import Divergence
from shadowmmu.check.replay.replay import replay
from shadowmmu.cli.main import call
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins.origin import Origin

BASIC = "shadow/p32_basic"


def load(name: str) -> Capture:
    return find(name)[0].load()


def nth(capture: Capture, kind: type, number: int = 0, **fields: object) -> int:
    """Index of the `number`th event of a kind behind the first guest entry, with these field values."""
    start = next(i for i, event in enumerate(capture.events) if isinstance(event, e.VmEntry))
    places = (i for i in range(start, len(capture.events)) if isinstance(capture.events[i], kind))
    return [i for i in places if all(getattr(capture.events[i], name) == value for name, value in fields.items())][number]


def with_events(capture: Capture, events: list[AnyEvent]) -> Capture:
    return msgspec.structs.replace(capture, events=events)


def changed(capture: Capture, index: int, **fields: object) -> Capture:
    events = list(capture.events)
    events[index] = msgspec.structs.replace(events[index], **fields)
    return with_events(capture, events)


def dropped(capture: Capture, index: int) -> Capture:
    return with_events(capture, capture.events[:index] + capture.events[index + 1 :])


def swapped(capture: Capture, index: int) -> Capture:
    events = list(capture.events)
    events[index], events[index + 1] = events[index + 1], events[index]
    return with_events(capture, events)


def divergence(capture: Capture, roots: str = "legacy") -> Divergence:
    found = replay(capture, roots).divergence
    assert found is not None
    return found


def key(origin: Origin | None) -> tuple[str, str] | None:
    return None if origin is None else (origin.decider, origin.situation)


# --- the rule


@pytest.mark.parametrize(
    ("name", "kind", "number", "field", "change", "rule"),
    [
        (BASIC, e.SetSpte, 0, "spte", 2, ("make_spte.make_spte", "of a fault")),
        ("random/p32_rnd0", e.SetSpte, 3, "spte", 2, ("prefetch.pte_prefetch", "prefetched")),
        ("shadow/np32_basic", e.SetSpte, 0, "spte", 2, ("fetch.direct_map", "of a direct fault")),
        ("shadow/np32_basic", e.SetSpte, 1, "level", 2, ("prefetch.direct_pte_prefetch", "prefetched by a direct fault")),
        (BASIC, e.GetPage, 0, "role", 0x2000, ("pages.alloc_shadow_page", "a new page for a guest table")),
        ("shadow/np32_basic", e.GetPage, 0, "role", 0x2000, ("fetch.build_direct", "a new direct page")),
        (BASIC, e.UnsyncPage, 0, "gfn", 1, ("unsync.unsync_pages", "")),
        (BASIC, e.SyncPage, 0, "gfn", 1, ("roots.sync_roots", "at a flush")),
        ("shadow/p32_flood", e.PrepareZapPage, 0, "gfn", 1, ("tracking.is_flooded", "a flood of writes")),
        ("shadow/p64_dirty", e.WriteProtectPtMasked, 0, "mask", 1, ("dirty.get_dirty_log", "")),
        ("shadow/pae_perm", e.WalkerError, 0, "pferr", 4, ("walker.permission_fault", "rights")),
        (BASIC, e.WalkerError, 0, "pferr", 4, ("walker.walk_tables", "an entry is not present")),
        ("shadow/p32_mmio", e.MarkMmioSpte, 0, "access", 2, ("leaf.set_mmio", "of a fault")),
    ],
)
def test_a_changed_bit_shows_the_rule_that_made_ours(name, kind, number, field, change, rule):
    capture = load(name)
    index = nth(capture, kind, number)
    found = divergence(changed(capture, index, **{field: getattr(capture.events[index], field) ^ change}))
    assert found.index == index
    assert key(found.made_by) == rule
    assert found.wanted_by is None  # the same rule, with another outcome


def test_a_dropped_event_shows_both_rules():
    capture = load(BASIC)
    found = divergence(dropped(capture, nth(capture, e.GetPage)))
    assert key(found.made_by) == ("pages.alloc_shadow_page", "a new page for a guest table")
    assert key(found.wanted_by) == ("huge.choose_hugepage", "")


def test_events_that_change_places_show_both_rules():
    capture = load(BASIC)
    index = nth(capture, e.SpteRequested)
    assert isinstance(capture.events[index + 1], e.SetSpte)
    found = divergence(swapped(capture, index))
    assert key(found.made_by) == ("huge.choose_hugepage", "")
    assert found.wanted_by is not None and found.wanted_by.decider.startswith("prefetch.")


def test_an_event_that_only_the_kernel_has_shows_its_rule():
    """The last event of the capture's closing window: the engine does nothing more."""
    capture = load(BASIC)
    index = nth(capture, e.MmuPageFaultRet)
    extra = e.UnsyncPage(gfn=1, role=0x3711, mmu_valid_gen=0, root_count=0, unsync=False)
    found = divergence(with_events(capture, [*capture.events[: index + 1], extra, *capture.events[index + 1 :]]))
    assert found.made_by is None
    assert key(found.wanted_by) == ("unsync.unsync_pages", "")


def test_what_is_no_event_shows_the_last_rule_before():
    capture = load(BASIC)
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Marker) and " val=da7a0000" in event.text)
    found = divergence(changed(capture, index, text=capture.events[index].text.replace("da7a0000", "da7a0001")))
    assert "the guest read da7a0001" in found.what
    assert found.made_by is not None and found.made_by.emitter


def test_a_dump_that_no_marker_leads_to_is_not_passed_over():
    capture = load(BASIC)
    dumps = [msgspec.structs.replace(capture.dumps[0], seq=9999), *capture.dumps[1:]]
    assert "was taken at the guest's marker 9999, which never came" in divergence(msgspec.structs.replace(capture, dumps=dumps)).what


# --- the command


def pasted(output: str) -> list[str]:
    """The arguments of the command that a divergence prints."""
    (line,) = re.findall(r"^the state just before: shadowmmu (.*)$", output, flags=re.M)
    return shlex.split(line)


@every_design
def test_the_command_shows_the_state_before_the_input(roots, tmp_path, capsys):
    """In a folder whose name needs quotes; the fault that diverges has not been handled yet there."""
    capture = load(BASIC)
    index = nth(capture, e.PagingElement, 6)
    path = tmp_path / "my set" / "one.capture"
    save(changed(capture, index, pte=capture.events[index].pte ^ 4), path)
    assert call(["replay", str(path), "--roots", roots]) == 1
    out = capsys.readouterr().out
    assert "kvm_mmu_paging_element differs in pte" in out and "walker.walk_tables" in out
    arguments = pasted(out)
    assert arguments[:4] == ["replay", str(path), "--roots", roots]
    assert isinstance(capture.events[int(arguments[-1])], e.MmuPageFault)
    assert call(arguments) == 0
    assert "the kernel's next: mmu_page_fault" in capsys.readouterr().out


def test_the_command_works_where_the_capture_is_over(tmp_path, capsys):
    """Counters are compared behind the last event."""
    capture = load(BASIC)
    counters = [msgspec.structs.replace(c, values={**c.values, "pf_fixed": 1}) if c.tag == "final" else c for c in capture.counters]
    closing = next(i for i, event in enumerate(capture.events) if isinstance(event, e.Marker) and event.text == "H closing")
    path = tmp_path / "one.capture"
    save(msgspec.structs.replace(capture, events=capture.events[:closing], counters=counters), path)
    assert call(["replay", str(path)]) == 1
    assert call(pasted(capsys.readouterr().out)) == 0
    assert "nothing, the capture is over" in capsys.readouterr().out


def test_captures_are_called_by_what_finds_them_again(tmp_path):
    from kit_files import write_kit

    shipped = find(BASIC)[0]
    assert shipped.argument == BASIC
    folder = write_kit(shipped.load(), tmp_path)
    (one,) = find(str(tmp_path))
    assert Path(one.argument) == folder / "p32_basic.jsonl.gz"
    assert find(one.argument) == [one]
