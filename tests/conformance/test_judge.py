# SPDX-License-Identifier: GPL-2.0-only
"""Oracle and audit on replayed VMs: what the kernel did is right, and what is changed in it on purpose is not."""

from __future__ import annotations

import msgspec
import pytest
from designs import KERNEL, every_design
from poke import poke_host

from shadowmmu import Outcome
from shadowmmu.captures.find import Found, find
from shadowmmu.check.replay.replay import Replay
from shadowmmu.check.replayed import inputs
from shadowmmu.check.special_roots import special_vm
from shadowmmu.check.special_roots.rules import RULES
from shadowmmu.cli.main import call
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import USER
from shadowmmu.trace import events as e

JUDGED = (
    "shadow/*_perm",
    "random_modes/*1",
    "edges/*_rsvd*",
    "late",
    "zero",
    "two",
    "slotpool/p32_slotpool2",
    "wild",
    "random_nestedsp/*0",
)


@every_design
@pytest.mark.parametrize("found", [pytest.param(found, id=found.name) for name in JUDGED for found in find(name)])
def test_what_the_kernel_did_is_right(found: Found, roots: str) -> None:
    result = Replay(found.load(), roots, judged=True).run()
    assert result.ok, result.divergence


@pytest.mark.parametrize("name", ["shadow/p32_perm", "shadow/pae_perm", "shadow/p64_perm"])
def test_what_the_guest_has_not_allowed_is_seen(name: str) -> None:
    """A supervisor's page becomes a user's: the oracle sees it."""
    replay = Replay(find(name)[0].load(), judged=True)
    (judge,) = replay.judges
    seen = 0
    for at in (i for i, event in enumerate(replay.events) if isinstance(event, e.Marker) and event.text.startswith("G ")):
        assert replay.run(at + 1).ok
        tlb = judge.oracle.vcpus[0]
        for gva in (page << 12 for page in judge.oracle.watched):
            allowed = tlb.possible(gva)
            if replay.cpu.translate(gva) is None or any(t.rights & USER for t in allowed) or not tlb.mode.wp:
                continue
            entry = replay.cpu.passed[-1]
            value = replay.vm.read_host_u64(entry)
            poke_host(replay.vm, entry, value | USER)
            with pytest.raises(Violation, match=r"user read of .* went to host .* the guest allowed only"):
                judge.look_at(gva)
            poke_host(replay.vm, entry, value)
            seen += 1
    assert seen


def test_a_guest_that_names_no_address_is_audited() -> None:
    """As an image that stores nothing: the oracle has nothing to watch."""
    capture = find("image/np32_basic")[0].load()
    stores = [event for event in capture.events if not (isinstance(event, e.Marker) and event.text.startswith("H stored "))]
    first = next(at for at, (ours, all_) in enumerate(zip(stores, capture.events, strict=False)) if ours != all_)
    replay = Replay(msgspec.structs.replace(capture, events=stores[:first]), judged=True)
    assert replay.run(first).ok and not replay.judges[0].judges


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["replay", "shadow/p32_perm", "--judge"]) == 0
    assert "1 of 1 captures replay exactly" in capsys.readouterr().out


def without_letter_a(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a special root does later has no rule any more."""
    monkeypatch.setattr(special_vm, "RULES", [(letter, rule) for letter, rule in RULES if letter != "a"])


def test_what_no_letter_explains_is_equal_if_guest_and_user_space_see_the_same(monkeypatch, capsys) -> None:
    without_letter_a(monkeypatch)
    result = Replay(find("shadow/pae_perm")[0].load(), "special").run()
    assert result.divergence is not None and "no rule explains" in result.divergence.what
    result = Replay(find("shadow/pae_perm")[0].load(), "special", judged=True).run()
    assert result.ok and result.parted.startswith("no rule explains") and not result.until
    assert call(["replay", "shadow/pae_perm", "shadow/p64_perm", "--roots", "special"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 exact, 1 equal" in out and "pae_perm is equal for guest and user space" in out


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (inputs.Fault, lambda side: Outcome.INJECT),
        (inputs.WriteEmulated, lambda side: False),
        (inputs.DirtyLog, lambda side: bytes(2)),
    ],
)
def test_what_guest_or_user_space_would_see_is_not_excused(monkeypatch, given, wrong) -> None:
    """A fault that the guest gets, a store that is lost, a page that is missing in the log: behind a difference without a letter, too."""
    without_letter_a(monkeypatch)
    do = given.__call__
    monkeypatch.setattr(given, "__call__", lambda self, side: do(self, side) if side.vm.roots == KERNEL else wrong(side))
    name = "shadow/p32_dirty" if given is inputs.DirtyLog else "extra/p32_flood2"
    result = Replay(find(name)[0].load(), "special", judged=True).run()
    assert result.divergence is not None
