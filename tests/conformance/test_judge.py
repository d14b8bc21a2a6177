# SPDX-License-Identifier: GPL-2.0-only
"""Oracle and audit on replayed VMs: what the kernel did is right, and what is changed in it on purpose is not."""

from __future__ import annotations

import pytest
from designs import every_design
from poke import poke_host

from shadowmmu.captures.find import Found, find
from shadowmmu.check.replay.driver import Replay
from shadowmmu.cli.main import call
from shadowmmu.hardware.cpu import Violation
from shadowmmu.hardware.walk import USER
from shadowmmu.trace import events as e

JUDGED = ("shadow/*_perm", "random_modes/*1", "edges/*_rsvd*", "late", "zero", "two", "slotpool/p32_slotpool2", "random_nestedsp/*0")


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


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["replay", "shadow/p32_perm", "--judge"]) == 0
    assert "1 of 1 captures replay exactly" in capsys.readouterr().out
