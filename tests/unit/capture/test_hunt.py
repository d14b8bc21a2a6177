# SPDX-License-Identifier: GPL-2.0-only
"""A hunt without QEMU: what it looks at in captures that it is given, and how it cuts a guest shorter."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from kit_files import write_kit

from shadowmmu.captures.find import find
from shadowmmu.trace import events as e

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "capture"))

import capture as driver
from kit.guest import PAE32
from kit.hunt import Finding, Hunt
from kit.run import Host
from kit.wild_guest import WildGuest


class Named:
    def __init__(self, name):
        self.name = name


def hunt_on(tmp_path, monkeypatch, capture):
    """A hunt whose captured kernel leaves this capture."""
    hunt = Hunt(tmp_path, Host(), print)
    monkeypatch.setattr(hunt, "_capture", lambda _guests: write_kit(capture, tmp_path))
    return hunt.batch([Named(capture.guest.name), Named("died")])


def test_a_capture_that_is_right_on_both_roots_is_no_finding(tmp_path, monkeypatch):
    assert hunt_on(tmp_path, monkeypatch, find("shadow/np32_dirty")[0].load()) == []
    assert not (tmp_path / "hunt").exists()


def test_what_differs_is_found_on_both_and_kept(tmp_path, monkeypatch):
    original = find("shadow/np32_dirty")[0].load()
    events = list(original.events)
    at = next(i for i, event in enumerate(events) if isinstance(event, e.SetSpte))
    events[at] = msgspec.structs.replace(events[at], spte=events[at].spte ^ 2)
    found = hunt_on(tmp_path, monkeypatch, msgspec.structs.replace(original, events=events))
    assert found == [Finding("np32_dirty", roots, "kvm_mmu_set_spte differs in spte") for roots in ("legacy", "special")]
    assert str(found[0]) == "np32_dirty on legacy roots: kvm_mmu_set_spte differs in spte"
    (kept,) = find(str(tmp_path / "hunt" / "np32_dirty.capture"))
    assert kept.load().events == events


def test_a_guest_is_cut_to_its_shortest_beginning(tmp_path, monkeypatch):
    """What shows at 47 steps: found by lengths of 10, 20, .. and then by those between."""
    hunt, booted = Hunt(tmp_path, Host(), print), []

    def batch(guests):
        booted.append([guest.name for guest in guests])
        return [Finding(name, "legacy", "it") for name in booted[-1] if int(name.split("_")[-1]) >= 47]

    monkeypatch.setattr(hunt, "batch", batch)
    guest = WildGuest("pae_wild5", PAE32, 5).play()
    assert hunt.shorten(guest) == Finding("pae_wild5_47", "legacy", "it")
    assert [len(names) for names in booted] == [16, 9]
    short = guest.again("x", 47)
    assert short.ops == guest.ops[: len(short.ops)] and short.script == guest.script[: len(short.script)]


def test_only_random_sets_are_hunted(tmp_path, capsys):
    assert driver.main(["hunt", "shadow", "--work", str(tmp_path)]) == 2
    assert "shadow is no set of random guests: give one of random," in capsys.readouterr().err
