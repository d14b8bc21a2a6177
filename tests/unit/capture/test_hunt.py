# SPDX-License-Identifier: GPL-2.0-only
"""A hunt without QEMU: what it looks at in captures that it is given, how it cuts a guest shorter, and what it remembers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest
from kit_files import write_kit

from shadowmmu.captures.find import find
from shadowmmu.trace import events as e

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "capture"))

import capture as driver
from kit.draws import ADDRESS_BITS, CPUS, PARAMETERS, draw_for, host_for
from kit.guest import P32, P64, PAE32
from kit.hunt import Hunt
from kit.random_l2 import RandomNested
from kit.record import Looked, Record, told
from kit.run import Host
from kit.wild_guest import WildGuest
from kit.wild_turns import WildTurns


class Named:
    def __init__(self, name, seed):
        self.name, self.seed = name, seed


def hunted(tmp_path, monkeypatch, capture):
    """What a hunt says whose captured kernel leaves this capture, of two guests."""
    hunt = Hunt(tmp_path, "wild", Host(), print)
    monkeypatch.setattr(hunt, "_capture", lambda _guests: (write_kit(capture, tmp_path), {"died": "not a word"}))
    return hunt.batch([Named(capture.guest.name, 7), Named("died", 8)])


def test_a_capture_that_is_right_on_both_roots_is_no_finding(tmp_path, monkeypatch):
    capture = find("shadow/np32_dirty")[0].load()
    looked, died = hunted(tmp_path, monkeypatch, capture)
    assert (looked.set, looked.seed, looked.events, looked.legacy, looked.special) == ("wild", 7, len(capture.events), "exact", "exact")
    assert (died.events, died.end, died.findings) == (0, "not a word", [])
    assert not looked.findings and not (tmp_path / "hunt").exists()


def test_what_differs_is_found_on_both_and_kept(tmp_path, monkeypatch):
    original = find("shadow/np32_dirty")[0].load()
    events = list(original.events)
    at = next(i for i, event in enumerate(events) if isinstance(event, e.SetSpte))
    events[at] = msgspec.structs.replace(events[at], spte=events[at].spte ^ 2)
    looked = hunted(tmp_path, monkeypatch, msgspec.structs.replace(original, events=events))[0]
    assert looked.findings == [f"np32_dirty on {roots} roots: kvm_mmu_set_spte differs in spte" for roots in ("legacy", "special")]
    (kept,) = find(str(tmp_path / "hunt" / "np32_dirty.capture"))
    assert kept.load().events == events


def test_what_the_engine_cannot_have_is_a_finding_too(tmp_path, monkeypatch):
    """A machine with more address bits than it has, as QEMU can show one: told, and the hunt goes on."""
    capture = find("shadow/np32_dirty")[0].load()
    wide = msgspec.structs.replace(capture, setup=msgspec.structs.replace(capture.setup, maxphyaddr=52, host_maxphyaddr=52))
    monkeypatch.setattr("kit.hunt.read_capture", lambda _folder, _name: wide)
    looked = hunted(tmp_path, monkeypatch, capture)[0]
    assert all("maxphyaddr is 52; it must lie between 32 and 51" in finding for finding in looked.findings) and len(looked.findings) == 2


def row(guest="x", seed=0, what="exact", **more):
    return Looked("wild", "-cpu max", guest, seed, 100, "exact", what, **more)


@pytest.mark.parametrize(
    ("kind", "mode", "shows", "boots"),
    [(WildGuest, PAE32, 47, [16, 9]), (WildTurns, P64, 47, [16, 9]), (RandomNested, PAE32, 5, [18])],
)
def test_a_guest_is_cut_to_its_shortest_beginning(tmp_path, monkeypatch, kind, mode, shows, boots):
    """What shows at 47 steps of 160: found by lengths of 10, 20, .. and then by those between."""
    hunt, booted = Hunt(tmp_path, "wild", Host(), print), []

    def batch(guests):
        booted.append([guest.name for guest in guests])
        return [row(name, what="it" if int(name.split("_")[-1]) >= shows else "exact") for name in booted[-1]]

    monkeypatch.setattr(hunt, "batch", batch)
    guest = kind("name5", mode, 5).play()
    assert hunt.shorten(guest).findings == [f"name5_{shows} on special roots: it"]
    assert [len(names) for names in booted] == boots
    short = guest.again("x", shows)
    assert 0 < len(short.ops) < len(guest.ops) and short.ops == guest.ops[: len(short.ops)]
    assert short.script == guest.script[: len(short.script)]


def test_only_random_sets_are_hunted(tmp_path, capsys):
    assert driver.main(["hunt", "shadow", "--work", str(tmp_path)]) == 2
    assert "shadow is no set of random guests: give one of random," in capsys.readouterr().err


# --- what is drawn


def test_hosts_and_guests_cpus_are_drawn():
    """By their seeds, the same each time; over some seeds all that there is, and each to the guest's script and QEMU's arguments."""
    hosts = [host_for(Host(), seed) for seed in range(1000, 1100)]
    assert hosts == [host_for(Host(), seed) for seed in range(1000, 1100)]
    assert {host.address_bits for host in hosts} == set(ADDRESS_BITS) and {host.parameters for host in hosts} == set(PARAMETERS)
    assert all((f"phys-bits={host.address_bits}" in host.cpu) == bool(host.address_bits) for host in hosts)
    guests = [RandomNested(f"n32_{seed}", P32, seed) for seed in range(60)]
    for guest in guests:
        draw_for(guest)
    assert {tuple(guest.cpu) for guest in guests} == set(CPUS) and {guest.busy for guest in guests} == {True, False}


def test_a_hunt_draws_a_host_for_each_boot_and_a_cpu_for_each_guest(tmp_path, monkeypatch, capsys):
    booted = []

    def run(_place, scripts, host, raw, _report, _system):
        booted.append((host, [re.findall(r"^(?:nofeature|vendor|physbits) .*", script.read_text(), re.M) for script in scripts]))
        raw.mkdir(parents=True, exist_ok=True)
        return [f"{script.stem}: not a word" for script in scripts]

    monkeypatch.setattr("kit.run.run", run)
    monkeypatch.setattr("kit.hunt.decode", lambda _raw, _captured: {})
    for draw in ((), ("--draw",)):
        for first in (1000, 1001, 1003, 1006):
            assert (
                driver.main(["hunt", "random", "--first", str(first), "--minutes", "0", "--seeds", "3", *draw, "--work", str(tmp_path)])
                == 0
            )
    capsys.readouterr()
    assert {host for host, _ in booted[:4]} == {Host()} and [host for host, _ in booted[4:]] == [
        host_for(Host(), s) for s in (1000, 1001, 1003, 1006)
    ]
    assert not any(lacking for _, guests in booted[:4] for lacking in guests)
    assert any(lacking for _, guests in booted[4:] for lacking in guests)


# --- in pieces


def test_a_hunt_goes_on_where_the_last_one_stopped(tmp_path, monkeypatch, capsys):
    """Two pieces of the same set, one of another; then all of it is told."""

    def look(self, guests):
        return [
            Looked(self.name, "-cpu max", one.name, one.seed, 100, "exact", "it" if one.seed == 1001 and one.mode is PAE32 else "equal")
            for one in guests
        ]

    monkeypatch.setattr(Hunt, "batch", look)
    monkeypatch.setattr(Hunt, "shorten", lambda _self, _guest: None)
    hunt = ["hunt", "wild", "--minutes", "0", "--work", str(tmp_path), "--seeds"]
    assert driver.main([*hunt, "2"]) == 1
    out = capsys.readouterr().out
    assert "pae_wild1001 on special roots: it\nshorter: it is not\n" in out
    assert "up to seed 1001, 6 captures of 6 guests, 600 events; 6 exact on legacy roots, 0 exact and 5 equal on special ones" in out
    assert driver.main([*hunt, "1"]) == 0
    assert driver.main(["hunt", "random_nestedsp", "--minutes", "0", "--work", str(tmp_path), "--seeds", "1"]) == 0
    seeds = [(row.set, row.seed) for row in Record(tmp_path / "6.1" / "hunt").rows()]
    assert seeds == [("wild", seed) for seed in (1000, 1001) * 3 + (1002,) * 3] + [("random_nestedsp", 1000)] * 2
    capsys.readouterr()
    assert driver.main(["hunted", "--work", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines[:2]] == ["wild", "random_nestedsp"]
    assert lines[2].startswith("in all: 11 captures of 11 guests, 1,100 events;") and lines[3:] == ["pae_wild1001 on special roots: it"]


def test_what_was_captured_not_at_all_or_in_part_is_told():
    (line, *_) = told([row(), row(what="equal", end="user space wrote"), Looked("wild", "-cpu max", "died", 3, end="not a word")])
    assert line == (
        "wild, -cpu max: 2 captures of 3 guests, 200 events; 2 exact on legacy roots, 1 exact and 1 equal on special ones, "
        "1 ended early; 0 findings"
    )


def test_a_record_that_is_none_is_refused(tmp_path, capsys):
    folder = tmp_path / "6.1" / "hunt"
    folder.mkdir(parents=True)
    (folder / "record.jsonl").write_text('{"set": 1}\n')
    assert driver.main(["hunted", "--work", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "record.jsonl is no record of hunts" in err and err.count("\n") == 1
