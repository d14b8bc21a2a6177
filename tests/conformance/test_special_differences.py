# SPDX-License-Identifier: GPL-2.0-only
"""On roots of special pages: which differences from the kernel a replay explains, and that it explains no others."""

from __future__ import annotations

import msgspec
import pytest
from designs import KERNEL, special_designs
from poke import poke_host

from shadowmmu import ROOT_DESIGNS
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.find import find
from shadowmmu.check.compare.result import ReplayResult
from shadowmmu.check.replay.replay import Replay, replay
from shadowmmu.check.replayed import inputs
from shadowmmu.check.special_roots import causes
from shadowmmu.check.special_roots.align import BOTH, OURS, THEIRS, PageMatcher, Parting, Place, Taken
from shadowmmu.check.special_roots.page_census import Census
from shadowmmu.check.special_roots.rules import RULES
from shadowmmu.trace import events as e

L2_PAGE = {"gfn": 0x18, "role": 0x3712, "mmu_valid_gen": 0, "root_count": 0, "unsync": False, "spt": 0x1000}
L1_PAGE = {"gfn": 0x19, "role": 0x3711, "mmu_valid_gen": 0, "root_count": 0, "unsync": True, "spt": 0x2000}


def load(name: str) -> Capture:
    return find(name)[0].load()


def special(name: str, roots: str = "special") -> ReplayResult:
    return replay(load(name), roots)


# --- what is explained


@special_designs
def test_every_letter_is_seen(roots: str) -> None:
    """(e) takes two vCPUs, of which one loses a table that the other does not use."""
    seen: set[str] = set()
    for name in ("shadow/p32_cr3", "extra/p32_flood2", "edges/pae_hostpt", "two_roots/pae_elsewhere"):
        result = special(name, roots)
        assert result.ok, result.divergence
        seen |= result.differences.keys()
    assert seen == set(ROOT_DESIGNS[roots].differences)


@pytest.mark.parametrize("name", ["pae_chaos2", "p32_chaos0", "p32_quad0", "n32_nchaos2"])
def test_what_pools_of_tables_show_is_explained(name: str) -> None:
    """Unsync tables that a root load zaps; MMIO that the guest's tables refuse; pages that a sync logs; stores to what one shadows."""
    result = Replay(load(f"chaos/{name}"), "special", judged=True).run()
    assert result.ok and not result.parted and not result.until


def test_what_the_cpu_marked_by_the_dumps_it_has_marked_on_special_roots_too() -> None:
    """The host looks which pages are in use, and A is set again by accesses that no event tells."""
    replay = Replay(load("linux_7_3_aged/p64_wild1018"), "special", judged=True)
    result = replay.run()
    assert result.ok and not result.parted
    assert replay.special_vm is not None
    theirs, ours = replay.special_vm.theirs, replay.special_vm.ours
    tables = [(theirs.valid[page], ours.valid[page]) for page in theirs.valid.keys() & ours.valid.keys()]
    read = [
        (replay.vm.read_host_u64(k + at), replay.special_vm.side.vm.read_host_u64(s + at)) for k, s in tables for at in range(0, 4096, 8)
    ]
    leaves = [(k, s) for k, s in read if k & s & 1 << 11 and k & s & 1]
    assert len(leaves) > 20 and all(not k & ~s & 0x60 for k, s in leaves)


@special_designs
def test_a_root_that_is_freed_though_nothing_below_it_was_zapped_is_letter_e(roots: str) -> None:
    """Where what it leads to was zapped while its vCPU slept, it is (d)."""
    assert special("two_roots/p32_elsewhere", roots).differences["e"] == 4
    asleep = special("two_roots/p32_asleep2", roots).differences
    assert asleep["d"] and "e" not in asleep


@special_designs
def test_mmio_that_is_known_still_as_no_root_was_loaded_is_letter_d(roots: str) -> None:
    """The kernel forgets it with the root that it loads anew, and looks at the mark again."""
    result = Replay(load("random/pae_random1005"), roots, judged=True).run()
    assert result.ok and not result.parted and result.differences["d"] == 6


@special_designs
@pytest.mark.parametrize("name", ["shadow/p64_basic", "p57/p64_basic", "nested/n64_basic"])
def test_roots_with_a_guest_table_have_no_difference(name: str, roots: str) -> None:
    """A 4-level guest, also as L1, has no special page: the designs do the same."""
    result = special(name, roots)
    assert result.ok and result.differences == {} and result.events > 100


@special_designs
def test_most_of_what_happens_is_equal(roots: str) -> None:
    result = special("shadow/pae_basic", roots)
    kernel = replay(load("shadow/pae_basic"), KERNEL)
    assert result.ok and result.events > 0.9 * kernel.events
    assert result.dumps == kernel.dumps and result.dump_entries > 0.8 * kernel.dump_entries


# --- what is not


def parts(told: str, name: str = "shadow/p32_basic", roots: str = "special") -> None:
    result = special(name, roots)
    assert result.divergence is not None, "nothing was found"
    assert told in result.divergence.what
    assert result.divergence.operation


def only_legacy(monkeypatch: pytest.MonkeyPatch, given: type, instead: object) -> None:
    """The special VM does something else upon an input."""
    do = given.__call__
    monkeypatch.setattr(given, "__call__", lambda self, side: (do if side.vm.roots == KERNEL else instead)(self, side))


@special_designs
def test_a_forgotten_invlpg_is_found(monkeypatch: pytest.MonkeyPatch, roots: str) -> None:
    only_legacy(monkeypatch, inputs.Invlpg, lambda self, side: None)
    parts(f"the kernel does invlpg, {roots} roots nothing", roots=roots)


@special_designs
def test_a_store_that_the_mmu_does_not_hear_of_is_found(monkeypatch: pytest.MonkeyPatch, roots: str) -> None:
    only_legacy(monkeypatch, inputs.WriteEmulated, lambda self, side: side.vm.write_guest(self.gpa, self.data))
    parts(f"the kernel does pte_write, {roots} roots nothing", "shadow/p32_pde", roots)


@special_designs
def test_a_fault_that_is_not_served_is_found(monkeypatch: pytest.MonkeyPatch, roots: str) -> None:
    only_legacy(monkeypatch, inputs.Fault, lambda self, side: inputs.Outcome.RETRY)
    parts("no rule explains that the kernel does mmu_page_fault", roots=roots)


@special_designs
def test_a_wrong_injection_is_found(monkeypatch: pytest.MonkeyPatch, roots: str) -> None:
    """The fault of a write in place of that of a read: other bits in the error code, D set."""
    do = inputs.Fault.__call__
    only_legacy(monkeypatch, inputs.Fault, lambda self, side: do(inputs.Fault(self.address, self.code ^ 2), side))
    parts("no rule explains that mmu_page_fault differs in err", roots=roots)


@special_designs
@pytest.mark.parametrize("flip", [0x2, 0x400, 0x1000])
def test_an_entry_of_the_tables_that_is_another_one_is_found(flip: int, roots: str) -> None:
    """A leaf's W, MMU-writable or frame: at the next dump, or by the value that the guest reads."""
    run = Replay(load("shadow/p32_basic"), roots)
    special = run.special_vm
    assert special is not None
    while run.step():
        run.at += 1
        entry = next((x for x in (special.side.vm.rmap(0x8000) if run.result.dumps > 5 else ())), 0)
        if entry:
            break
    poke_host(special.side.vm, entry, special.side.vm.read_host_u64(entry) ^ flip)
    run.at += 1
    found = run.run().divergence
    assert found is not None and "no rule explains that level 1 entry" in found.what


@special_designs
def test_a_perturbed_capture_is_found_on_special_roots_too(roots: str) -> None:
    capture = load("shadow/pae_basic")
    index = next(i for i, event in enumerate(capture.events) if isinstance(event, e.SetSpte))
    events = list(capture.events)
    events[index] = msgspec.structs.replace(events[index], spte=events[index].spte ^ 2)
    found = replay(msgspec.structs.replace(capture, events=events), roots).divergence
    assert found is not None and found.what == "kvm_mmu_set_spte differs in spte"


# --- the rules are narrow


def place(given: object, kernel: list[e.AnyEvent], engine: list[e.AnyEvent]) -> Place:
    """Where the two streams begin with these events; both VMs have a level-2 and an unsync level-1 page."""
    censuses = Census(), Census()
    for census in censuses:
        for fields in (L2_PAGE, L1_PAGE):
            census.follow(e.GetPage(**fields, created=True))
        census.follow(e.UnsyncPage(**L1_PAGE))
    special = Replay(load("shadow/p32_basic"), "special").special_vm
    assert special is not None
    at = Place(given, special.side, censuses, PageMatcher(*censuses), Parting())
    for event in kernel:
        at.kernel.add(event, True)
    for event in engine:
        at.engine.add(event, True)
    return at


def explained(at: Place) -> set[str]:
    return {rule.__name__ for _, rule in RULES if isinstance(rule(at), Taken)}


FAULT, ENTER, STORE = inputs.Fault(0x5000, 2), inputs.Enter(), inputs.WriteEmulated(0x18000, bytes(4))
MMIO, IN_FORCE = inputs.Fault(0x5000, 8), e.CheckMmioSpte(spte=0x80000D00000C7, kvm_gen=6, spte_gen=6)
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
        (MMIO, [IN_FORCE], []),  # no root was loaded anew
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
    at = place(MMIO, [IN_FORCE], [])
    at.parting.forgotten = "e"
    assert explained(at) == {"known_mmio_of_a_whole_root"}
    for given, mark in ((FAULT, IN_FORCE), (MMIO, msgspec.structs.replace(IN_FORCE, spte_gen=4))):
        at = place(given, [mark], [])
        at.parting.forgotten = "d"
        assert explained(at) == set()
    at = place(STORE, [], [e.PrepareZapPage(**L2_PAGE)])
    at.ours.unvisited.add(next(iter(at.ours.valid)))
    assert explained(at) == {"zapped"}
    at = place(FAULT, [SET], [])
    at.parted = True
    assert explained(at) == {"met_other_tables"}


def test_a_zap_at_the_load_is_explained_by_the_look_up_behind_it() -> None:
    zapped = e.PrepareZapPage(**L1_PAGE)
    for upper, rules_of_it in ((L2_PAGE | {"gfn": 0x19}, {"zapped_at_the_load"}), (L2_PAGE, set())):
        at = place(ENTER, [zapped, e.GetPage(**upper, created=True)], [])
        at.loading = True
        assert explained(at) == rules_of_it
    at = place(ENTER, [zapped, e.GetPage(**L2_PAGE | {"gfn": 0x19}, created=True)], [])
    assert explained(at) == set()
    at = place(FAULT, [], [e.GetPage(**L2_PAGE | {"gfn": 0x19}, created=True)])
    at.is_under_special = lambda _table: True  # type: ignore[method-assign]
    assert explained(at) == set()  # its level-1 page is unsync still


def test_a_look_up_at_the_load_is_explained_if_the_kernel_looks_up_the_same_page() -> None:
    """A prefilled root; the kernel may have to make the page, and where it shuts the guest down it comes to no look-up."""
    ours = e.GetPage(**L2_PAGE, created=False)
    for theirs in (e.GetPage(**L2_PAGE, created=True), e.GetPage(**L2_PAGE | {"root_count": 1}, created=False)):
        at = place(ENTER, [theirs], [ours])
        at.loading = True
        assert causes.loaded_too(at) == BOTH
    for theirs in (
        e.GetPage(**L2_PAGE | {"gfn": 0x17}, created=True),
        e.GetPage(**L2_PAGE | {"unsync": True}, created=True),
        e.SyncRoots(),
    ):
        at = place(ENTER, [theirs], [ours])
        at.loading = True
        assert causes.loaded_too(at) is None
    at = place(ENTER, [], [ours])
    at.loading = at.kernel_shuts_down = True
    assert explained(at) == {"loaded_too"}


def test_a_sync_before_the_link_is_explained_once_and_if_the_kernel_syncs_the_same_page() -> None:
    synced = e.SyncPage(**L1_PAGE)
    at = place(ENTER, [e.SyncRoots(), synced, synced], [synced])
    at.loading = True
    assert causes.synced_at_the_load(at) == OURS
    at.take(Taken(1, 1))
    assert causes.synced_at_the_load(at) == THEIRS
    at.take(THEIRS)
    assert causes.synced_at_the_load(at) is None
    at = place(ENTER, [e.SyncRoots(), e.SyncPage(**L1_PAGE | {"gfn": 0x1A})], [synced])
    at.loading = True
    assert explained(at) == set()
