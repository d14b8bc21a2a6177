# SPDX-License-Identifier: GPL-2.0-only
"""The table of origins: it has every kind of event, names functions that exist and do what it says, and the right row is chosen."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from engine_source import callees, functions, reaches

from shadowmmu import EventRecord
from shadowmmu.captures.find import find
from shadowmmu.check.replay.replay import Replay
from shadowmmu.engine.arena.events import Event as Kind
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.trace import engine
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins import CASES
from shadowmmu.trace.origins.later import EARLIER, LATER, function_at, function_on
from shadowmmu.trace.origins.origin import Case, always
from shadowmmu.view.divergence_rules import draw_rules

RULES = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()
FUNCTIONS = functions()
CALLS = callees(FUNCTIONS)
EMITTED = {type(engine.from_record(EventRecord(int(kind), 0, (1, 2, 3, 4, 5, 6)))): kind.name for kind in Kind}
"""Struct of an event -> the engine's name of its kind."""


def named(case: Case) -> str:
    return f"{case.origin.event}-{case.origin.situation}".replace(" ", "_")


def emits(function: str, kind: str) -> bool:
    return bool(re.search(rf"\bemit(_sp)?\([^\n]*Event\.{kind}\b", FUNCTIONS[function]))


def are_linked(decider: str, emitter: str) -> bool:
    """One leads to the other, or the decider is asked by a function that leads to the emitter."""
    if reaches(CALLS, decider, emitter) or reaches(CALLS, emitter, decider):
        return True
    return any(decider in called and reaches(CALLS, asker, emitter) for asker, called in CALLS.items())


def test_every_kind_has_a_last_case_that_always_applies() -> None:
    for kind in AnyEvent.__args__:
        cases = [case for case in CASES if case.kind is kind]
        assert cases, f"{kind.__name__} has no row"
        assert cases[-1].applies is always
        assert all(case.applies is not always for case in cases[:-1]), f"{kind.__name__}: rows behind one that always applies"
        assert len({case.origin.situation for case in cases}) == len(cases)


@pytest.mark.parametrize("case", [case for case in CASES if case.origin.emitter], ids=named)
def test_the_engine_does_what_the_row_says(case: Case) -> None:
    origin = case.origin
    assert emits(origin.emitter, EMITTED[case.kind]), f"{origin.emitter} does not emit {origin.event}"
    assert origin.decider in FUNCTIONS, f"there is no function {origin.decider}"
    assert are_linked(origin.decider, origin.emitter), f"nothing links {origin.decider} with {origin.emitter}"


@pytest.mark.parametrize("case", [case for case in CASES if not case.origin.emitter], ids=named)
def test_the_engine_does_not_tell_of_what_it_is_given(case: Case) -> None:
    kind = EMITTED.get(case.kind)
    assert kind is None or not any(emits(function, kind) for function in FUNCTIONS)
    assert not case.origin.decider


def test_each_emitter_has_a_row() -> None:
    told = {(function, kind) for function in FUNCTIONS for kind in re.findall(r"\bemit(?:_sp)?\([^\n]*Event\.(\w+)", FUNCTIONS[function])}
    assert len(told) >= 36
    assert told == {(case.origin.emitter, EMITTED[case.kind]) for case in CASES if case.origin.emitter}


def test_rules_are_numbered_as_in_the_docs() -> None:
    numbers = set(re.findall(r"^\| ([RIH]\d+) \|", RULES, flags=re.M))
    for case in CASES:
        assert set(case.origin.ids) <= numbers, case.origin
        assert case.origin.rule.endswith("."), case.origin
        assert case.origin.kernel or case.kind in (e.SpecialAlloc, e.SpecialFree, e.Other), case.origin


def test_a_call_graph_that_links_everything_would_prove_nothing() -> None:
    assert not are_linked("huge.choose_hugepage", "zap.zap_all_fast")
    assert not are_linked("requests.prepare_entry", "slot_update.slot_move")
    assert not are_linked("tracking.is_flooded", "mmio.mark_mmio_spte")
    assert not emits("zap.prepare_zap", "KVM_MMU_GET_PAGE")


def test_functions_have_the_name_of_their_kernel() -> None:
    named = {case.origin.kernel for case in CASES}
    assert set[str]().union(*LATER.values(), *EARLIER.values()) <= named
    assert list(LATER) == sorted(LATER) and list(EARLIER) == sorted(EARLIER, reverse=True)
    assert [function_on("FNAME(invlpg)", kernel) for kernel in KERNELS] == ["FNAME(invlpg)", *["__kvm_mmu_invalidate_addr"] * 2]
    assert [function_on("kvm_mmu_zap_collapsible_sptes", kernel) for kernel in ("6.12", "7.3")] == [
        "kvm_mmu_zap_collapsible_sptes", "kvm_mmu_recover_huge_pages",
    ]  # fmt: skip
    assert function_on("kvm_mmu_load", "7.3") == "kvm_mmu_load"
    assert [function_at("kvm_mmu_get_child_sp", version) for version in ((5, 19), (6, 0))] == ["kvm_mmu_get_page", "kvm_mmu_get_child_sp"]


def test_a_divergence_names_the_functions_of_its_kernel() -> None:
    capture = find("linux_7_3/pae_invlpg")[0].load()
    found = Replay(msgspec.structs.replace(capture, setup=msgspec.structs.replace(capture.setup, changed="-invlpg_syncs"))).run().divergence
    assert found is not None and found.kernel == "7.3" and found.made_by is not None
    assert "of Linux 7.3" in str(next(draw_rules(found).columns[1].cells))
