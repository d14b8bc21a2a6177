# SPDX-License-Identifier: GPL-2.0-only
"""Captures of real kernels with special roots: they replay directly, on the engine's special roots, without any letter."""

from pathlib import Path

import msgspec
import pytest
from judged import judge

from shadowmmu.captures.find import find
from shadowmmu.captures.lookahead import dumped_while_aged
from shadowmmu.captures.validate import AGED
from shadowmmu.check.audit import audit
from shadowmmu.check.replay import observe
from shadowmmu.check.replay.replay import Replay, replay
from shadowmmu.check.rerun.rerun import rerun
from shadowmmu.cli.main import main
from shadowmmu.errors import BadInput
from shadowmmu.trace import events as e

AUDITED = 200
"""After so many events the whole structure is looked at, and held against the guest's tables."""
PLACE = Path(__file__).parent / "special_kernel"
PLACES = {"6.1": PLACE, "6.12": PLACE.with_name("special_kernel_6_12"), "7.3": PLACE.with_name("special_kernel_7_3")}
SETS = {"shadow", "extra", "p57", "nested", "nested_la57", "nested_tdp0", "nestedsp", "shadow_npt1_tdp0", "two_roots"}
"""Those of which some captures of each kernel are here."""
EVERY = [
    pytest.param(kernel, one, id=f"{kernel}/{one.name}")
    for kernel, place in PLACES.items()
    for folder in sorted(place.glob("*_special"))
    for one in find(str(folder))
]
POSTED = find(str(PLACE / "beyond_posted"))


def load(name, kernel="6.1"):
    return find(str(PLACES[kernel] / f"{name}.capture"))[0].load()


@pytest.mark.parametrize(("kernel", "one"), EVERY)
def test_replays_exactly(kernel, one):
    """Which roots and whose rules: the capture says both."""
    capture = one.load()
    assert capture.setup.roots == "special"
    assert capture.setup.series == kernel
    run = Replay(capture)
    for at in range(AUDITED, len(run.events), AUDITED):
        if run.run(at).ok:
            assert audit(run.vm, strict=True) == []
            assert judge(run.vm) == []
    result = run.run()
    assert result.ok, (result.divergence, result.bugs)
    assert (result.roots, result.captured_on, result.differences) == ("special", "special", {})
    assert result.events > 20 and result.counters


@pytest.mark.parametrize("kernel", PLACES)
def test_every_set_of_the_kit_is_there(kernel):
    assert {folder.name.removesuffix("_special") for folder in PLACES[kernel].glob("*_special") if find(str(folder))} >= SETS


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
@pytest.mark.parametrize("name", ["extra_special/pae_unsync2", "shadow_special/pae_ctl", "nestedsp_special/snpae_paged"])
def test_the_rules_of_the_kernel_decide(name, kernel):
    capture = load(name, kernel)
    as_of_6_1 = msgspec.structs.replace(capture, setup=msgspec.structs.replace(capture.setup, kernel="6.1"))
    assert replay(capture).ok
    assert not replay(as_of_6_1).ok


def test_the_roots_of_the_kernel_decide_and_can_be_told():
    """A capture that does not say is taken for one of the packaged kernel, unless one is told better."""
    capture = load("shadow_special/pae_cr3")
    silent = msgspec.structs.replace(capture, setup=msgspec.structs.replace(capture.setup, roots=""))
    assert replay(silent, captured_on="special").ok
    assert not replay(silent).ok
    with pytest.raises(BadInput, match="captured on special roots, as it says itself: leave out --captured-on legacy"):
        Replay(capture, captured_on="legacy")
    for roots in ("legacy", "prefilled"):
        with pytest.raises(BadInput, match=f"replays on these alone: leave out --roots {roots}"):
            Replay(capture, roots)


@pytest.mark.parametrize("name", ["shadow_special/pae_cr3", "nested_tdp0_special/npae_ncr3", "nestedsp_special/snpae_paged"])
def test_its_guests_run_as_code_on_the_machine(name):
    result = rerun(load(name))
    assert result.ok and result.roots == "special" and result.events > 100, result.divergence


def test_a_divergence_says_how_to_see_the_state_before_it(capfd):
    assert main(["replay", str(PLACE / "beyond_posted/n32_beyond.capture")]) == 1
    assert "n32_beyond.capture --captured-on special --at" in capfd.readouterr().out


@pytest.mark.parametrize("kernel", PLACES)
@pytest.mark.parametrize("mode", ["np32", "p32", "pae"])
def test_a_vcpu_that_slept_through_two_zaps_keeps_its_root(mode, kernel):
    """R11, R12, in the kernel: its root is of the right generation again, and empty. After one zap it is freed."""
    for times, kept in ((1, False), (2, True)):
        events = load(f"two_roots_special/{mode}_asleep{times}", kernel).events
        turns = [i for i, event in enumerate(events) if isinstance(event, e.Marker) and event.text == "H on vcpu=0"]
        awake = events[turns[1] :]
        entered = next(i for i, event in enumerate(awake) if isinstance(event, e.VmEntry))
        loads = [event for event in awake[:entered] if isinstance(event, e.MmuLoad)]
        assert (not loads) == kept, (mode, times)
        assert any(isinstance(event, e.MmuPageFault) for event in awake)


def test_posted_as_it_was_a_root_is_freed_as_what_it_is_not():
    """H1: behind #VMEXIT the mode is no longer the one that the root was made for, and the guest gets the same fault for ever.
    With the root itself asked it goes on."""
    posted, special = (load(f"nestedsp_{roots}/sn64_flat").events for roots in ("posted", "special"))
    at = [i for i, event in enumerate(posted) if isinstance(event, e.MmuPageFault)]
    again = posted[at[5] : at[-1]]
    faults = [event for event in again if isinstance(event, e.MmuPageFault)]
    assert len(faults) > 1000 and {(fault.addr, fault.err) for fault in faults} == {(faults[0].addr, faults[0].err)}
    assert not any(isinstance(event, e.SetSpte) for event in again)
    assert sum(isinstance(event, e.MmuPageFault) and event.addr == faults[0].addr for event in special) <= 2
    assert sum(isinstance(event, e.Marker) for event in special) > sum(isinstance(event, e.Marker) for event in posted)


def test_what_the_host_ages_is_an_input():
    """DAMON of 7.3 takes the A bit of a page that is in use: a dump shows it, and the next fault is no spurious one."""
    capture = load("random_special/p32_random9501", "7.3")
    assert any(isinstance(event, e.Other) and event.ev == AGED for event in capture.events)
    unaged = [event for event in capture.events if not (isinstance(event, e.Other) and event.ev == AGED)]
    assert replay(capture).ok
    found = replay(msgspec.structs.replace(capture, events=unaged)).divergence
    assert found is not None and found.what.startswith("dump before-op-74: level 1 entry 000 is 30d5a05 in the kernel")


def test_a_dump_that_was_taken_while_the_host_aged_tells_nothing_of_a(monkeypatch):
    """Its entries have A still, and those of the next one have not; taken over it would be there again."""
    capture = find("linux_7_3_aged/pae_wild1001")[0].load()
    assert dumped_while_aged(capture.events) >= {30}
    assert replay(capture).ok
    monkeypatch.setattr(observe, "dumped_while_aged", lambda _events: frozenset())
    found = replay(capture).divergence
    assert found is not None and found.what.startswith("dump before-op-22: level 1 entry 01b is fa1ba41 in the kernel")


@pytest.mark.parametrize("one", POSTED, ids=lambda one: one.name)
def test_posted_as_it_was_an_address_beyond_4_gib_fills_entry_4(one):
    """H2: the same level-2 table hangs at two places of one level-3 page. The engine gives L1 the fault instead."""
    capture = one.load()
    level_3 = [{entry.index: entry.value for entry in dump.entries if entry.level == 3} for dump in capture.dumps if dump.level == 4]
    doubled = [entries for entries in level_3 if 4 in entries]
    assert doubled and all(entries[4] == entries[0] for entries in doubled)
    found = replay(capture).divergence
    assert found is not None and found.rows[-2].engine is not None
    assert any(isinstance(row.engine, e.WalkerError) and row.differs for row in found.rows)
    special = load(one.name.replace("posted", "special"))
    assert not any(entry.level == 3 and entry.index > 3 for dump in special.dumps for entry in dump.entries)
    faults = [event for event in special.events if isinstance(event, e.NestedVmexitInject) and event.exit_info2 >> 32]
    assert len(faults) == 2
