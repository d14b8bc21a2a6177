"""On special roots: which differences from the kernel a replay explains, and that it explains no others."""

from __future__ import annotations

import msgspec
import pytest
from poke import poke_host

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.find import find
from shadowmmu.check.compare.result import Result
from shadowmmu.check.replay.driver import Replay, replay
from shadowmmu.check.replayed import inputs
from shadowmmu.check.special_roots import rules
from shadowmmu.check.special_roots.align import PageMatcher, Parting, Place, Taken
from shadowmmu.check.special_roots.page_census import Census
from shadowmmu.trace import events as e

L2_PAGE = {"gfn": 0x18, "role": 0x3712, "mmu_valid_gen": 0, "root_count": 0, "unsync": False, "spt": 0x1000}
L1_PAGE = {"gfn": 0x19, "role": 0x3711, "mmu_valid_gen": 0, "root_count": 0, "unsync": True, "spt": 0x2000}


def load(name: str) -> Capture:
    return find(name)[0].load()


def special(name: str) -> Result:
    return replay(load(name), "special")


# --- what is explained


def test_every_letter_that_one_vcpu_can_show_is_seen() -> None:
    """The captures have one vCPU each: (e) takes two."""
    seen: set[str] = set()
    for name in ("shadow/p32_cr3", "extra/p32_flood2", "edges/pae_hostpt"):
        result = special(name)
        assert result.ok, result.divergence
        seen |= result.differences.keys()
    assert seen == set("abcdfg")


@pytest.mark.parametrize("name", ["shadow/p64_basic", "p57/p64_basic", "nested/n64_basic"])
def test_roots_with_a_guest_table_have_no_difference(name: str) -> None:
    """A 4-level guest, also as L1, has no special page: the two designs do the same."""
    result = special(name)
    assert result.ok and result.differences == {} and result.events > 100


def test_most_of_what_happens_is_equal() -> None:
    result = special("shadow/pae_basic")
    kernel = replay(load("shadow/pae_basic"), "legacy")
    assert result.ok and result.events > 0.9 * kernel.events
    assert result.dumps == kernel.dumps and result.dump_entries > 0.8 * kernel.dump_entries


# --- what is not


def parts(told: str, name: str = "shadow/p32_basic") -> None:
    result = special(name)
    assert result.divergence is not None, "nothing was found"
    assert told in result.divergence.what
    assert result.divergence.operation


def only_legacy(monkeypatch: pytest.MonkeyPatch, given: type, instead: object) -> None:
    """The VM with special roots does something else upon an input."""
    do = given.__call__
    monkeypatch.setattr(given, "__call__", lambda self, side: (do if side.vm.roots == "legacy" else instead)(self, side))


def test_a_forgotten_invlpg_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    only_legacy(monkeypatch, inputs.Invlpg, lambda self, side: None)
    parts("the kernel does invlpg, special roots nothing")


def test_a_store_that_the_mmu_does_not_hear_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    only_legacy(monkeypatch, inputs.WriteEmulated, lambda self, side: side.vm.write_guest(self.gpa, self.data))
    parts("the kernel does pte_write, special roots nothing", "shadow/p32_pde")


def test_a_fault_that_is_not_served_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    only_legacy(monkeypatch, inputs.Fault, lambda self, side: inputs.Outcome.RETRY)
    parts("no rule explains that the kernel does mmu_page_fault")


def test_a_wrong_injection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of a write in place of that of a read: other bits in the error code, D set."""
    do = inputs.Fault.__call__
    only_legacy(monkeypatch, inputs.Fault, lambda self, side: do(inputs.Fault(self.address, self.code ^ 2), side))
    parts("no rule explains that mmu_page_fault differs in err")


@pytest.mark.parametrize("flip", [0x2, 0x400, 0x1000])
def test_an_entry_of_the_tables_that_is_another_one_is_found(flip: int) -> None:
    """A leaf's W, MMU-writable or frame: at the next dump, or by the value that the guest reads."""
    run = Replay(load("shadow/p32_basic"), "special")
    twin = run.twin
    assert twin is not None
    while run.step():
        run.at += 1
        entry = next((x for x in (twin.side.vm.rmap(0x8000) if run.result.dumps > 5 else ())), 0)
        if entry:
            break
    poke_host(twin.side.vm, entry, twin.side.vm.read_host_u64(entry) ^ flip)
    run.at += 1
    found = run.run().divergence
    assert found is not None and "no rule explains that level 1 entry" in found.what


def test_a_perturbed_capture_is_found_on_special_roots_too() -> None:
    capture = load("shadow/pae_basic")
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.SetSpte))
    events = list(capture.events)
    events[index] = msgspec.structs.replace(events[index], spte=events[index].spte ^ 2)
    found = replay(msgspec.structs.replace(capture, events=events), "special").divergence
    assert found is not None and found.what == "kvm_mmu_set_spte differs in spte"


# --- the rules are narrow


def place(given: object, kernel: list[e.AnyEvent], engine: list[e.AnyEvent]) -> Place:
    """Where the two streams begin with these events; both VMs have a level-2 and an unsync level-1 page."""
    censuses = Census(), Census()
    for census in censuses:
        for fields in (L2_PAGE, L1_PAGE):
            census.follow(e.GetPage(**fields, created=True))
        census.follow(e.UnsyncPage(**L1_PAGE))
    twin = Replay(load("shadow/p32_basic"), "special").twin
    assert twin is not None
    at = Place(given, twin.side, censuses, PageMatcher(*censuses), Parting())
    for event in kernel:
        at.kernel.add(event, True)
    for event in engine:
        at.engine.add(event, True)
    return at


def explained(at: Place) -> set[str]:
    return {rule.__name__ for _, rule in rules.RULES if isinstance(rule(at), Taken)}


FAULT, ENTER, STORE = inputs.Fault(0x5000, 2), inputs.Enter(), inputs.WriteEmulated(0x18000, bytes(4))
SET = e.SetSpte(gfn=0x50, spte=0x10050E67, level=1, sptep=0x2028)


@pytest.mark.parametrize(
    ("given", "kernel", "engine"),
    [
        (FAULT, [e.GetPage(**L2_PAGE, created=False)], []),  # the kernel looks a page up, but loads no root
        (FAULT, [], [e.GetPage(**L2_PAGE, created=False)]),  # we do, and no special page leads there
        (FAULT, [SET], []),
        (FAULT, [], [SET]),
        (FAULT, [SET], [msgspec.structs.replace(SET, spte=SET.spte ^ 2)]),
        (FAULT, [e.PagingElement(pte=0x50067, level=1)], [e.PagingElement(pte=0x51067, level=1)]),
        (FAULT, [e.SetDirtyBit(gpa=0x19028)], []),
        (FAULT, [e.MmuPageFault(addr=0x5000, err=3)], [e.MmuPageFault(addr=0x5000, err=2)]),
        (FAULT, [], [e.ZapOldest()]),
        (ENTER, [e.MmuLoad()], []),
        (ENTER, [], [e.SyncPage(**L1_PAGE)]),
        (ENTER, [], [e.LoadPgd(root=0x1000, level=3)]),
        (ENTER, [], [e.FreeRoots(roots=1)]),
        (STORE, [e.PrepareZapPage(**L2_PAGE)], []),  # both have it
        (STORE, [], [e.PrepareZapPage(**L2_PAGE)]),
        (STORE, [e.PteWrite(gpa=0x18000, bytes=4, val=0)], []),
    ],
)
def test_no_rule_takes_it(given: object, kernel: list[e.AnyEvent], engine: list[e.AnyEvent]) -> None:
    assert explained(place(given, kernel, engine)) == set()


def test_the_same_is_explained_where_there_is_a_reason() -> None:
    at = place(ENTER, [e.GetPage(**L2_PAGE, created=False)], [])
    at.loading = True
    assert explained(at) == {"loaded"}
    at = place(STORE, [], [e.PrepareZapPage(**L2_PAGE)])
    at.ours.unvisited.add(next(iter(at.ours.valid)))
    assert explained(at) == {"zapped"}
    at = place(FAULT, [SET], [])
    at.parted = True
    assert explained(at) == {"met_other_tables"}
