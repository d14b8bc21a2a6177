# SPDX-License-Identifier: GPL-2.0-only
"""On roots of special pages: for each letter a fault in just what it is about, which it does not excuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from designs import KERNEL, special_designs
from poke import poke_host

from shadowmmu import Outcome, TripleFault
from shadowmmu.captures.find import find
from shadowmmu.check.compare.result import ReplayResult
from shadowmmu.check.replay.replay import Replay
from shadowmmu.check.replayed import inputs
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.fields import FRAME_BITS

Patch = pytest.MonkeyPatch
PDPTES = range(4)


def run(name: str, roots: str) -> ReplayResult:
    return Replay(find(name)[0].load(), roots).run()


def special_does(patch: Patch, given: type, instead: Callable[..., Any]) -> None:
    """The VM with roots of special pages does something else upon an input; it gets what it would do."""
    do = given.__call__
    patch.setattr(
        given, "__call__", lambda self, side: do(self, side) if side.vm.roots == KERNEL else instead(lambda: do(self, side), side)
    )


def special_tells(patch: Patch, change: Callable[[ReplayedVm, list[AnyEvent]], list[AnyEvent]]) -> None:
    """It tells of other events than those that were."""
    events = ReplayedVm.events
    patch.setattr(ReplayedVm, "events", lambda side: events(side) if side.vm.roots == KERNEL else change(side, events(side)))


def top(side: ReplayedVm) -> list[int]:
    """The entries of the VM's three-level root, if it has one."""
    if not side.cpu.root or side.cpu.level != 3 or side.vcpu.root is None:
        return []
    return [side.vm.read_host_u64((side.vcpu.root & FRAME_BITS) + 8 * index) for index in PDPTES]


def links_the_wrong_page(patch: Patch) -> None:
    """The second PDPTE leads to the page of the first."""

    def fault(do: Callable[[], Any], side: ReplayedVm) -> object:
        value = do()
        entries = top(side)
        if entries and entries[0] and entries[1]:
            poke_host(side.vm, side.vcpu.root + 8, entries[0])
        return value

    special_does(patch, inputs.Fault, fault)


def counts_a_root(patch: Patch) -> None:
    """A level-2 page has a root count, as if it were a root."""

    def change(_side: ReplayedVm, events: list[AnyEvent]) -> list[AnyEvent]:
        return [
            msgspec.structs.replace(event, root_count=1) if isinstance(event, e.GetPage) and event.role & 0xF == 2 else event
            for event in events
        ]

    special_tells(patch, change)


def goes_on_after_a_shutdown(patch: Patch) -> None:
    """A CR3 that names no memory is no matter."""

    def enter(do: Callable[[], Any], _side: ReplayedVm) -> None:
        try:
            do()
        except TripleFault:
            return

    special_does(patch, inputs.Enter, enter)


def keeps_a_zapped_page(patch: Patch) -> None:
    """A PDPTE is there again that was unlinked, since its page was zapped."""
    before: list[int] = []

    def enter(do: Callable[[], Any], side: ReplayedVm) -> None:
        do()
        now = top(side)
        if len(before) == len(now):
            for index, (old, new) in enumerate(zip(before, now, strict=True)):
                if old and not new:
                    poke_host(side.vm, side.vcpu.root + 8 * index, old)
        before[:] = top(side)

    special_does(patch, inputs.Enter, enter)


def keeps_an_obsolete_root(patch: Patch) -> None:
    """It asks for no other root, though all below its own was zapped."""

    def enter(do: Callable[[], Any], side: ReplayedVm) -> None:
        page = None if side.vcpu.root is None else side.vm.shadow_page(side.vcpu.root)
        if page is None or not page.obsolete:
            do()

    special_does(patch, inputs.Enter, enter)


def makes_one_too_many(patch: Patch) -> None:
    """A special page is made of which no root is."""
    spare = iter([e.SpecialAlloc(role=3, spt=0x5000)])

    def change(_side: ReplayedVm, events: list[AnyEvent]) -> list[AnyEvent]:
        return [*events, *(next(spare, None) for event in events if isinstance(event, e.SpecialAlloc))]

    special_tells(patch, lambda side, events: [event for event in change(side, events) if event is not None])


def knows_mmio_for_ever(patch: Patch) -> None:
    """It does not look whether a mark is in force."""

    def change(_side: ReplayedVm, events: list[AnyEvent]) -> list[AnyEvent]:
        return [event for event in events if not isinstance(event, e.CheckMmioSpte | e.HandleMmioPageFault)]

    special_tells(patch, change)


def leaves_unsync_tables(patch: Patch) -> None:
    """It looks up a level-2 page, and does not zap the unsync level-1 pages of the same table."""

    def change(_side: ReplayedVm, events: list[AnyEvent]) -> list[AnyEvent]:
        upper = {event.gfn for event in events if isinstance(event, e.GetPage) and event.role & 0xF == 2}
        return [event for event in events if not (isinstance(event, e.PrepareZapPage | e.SyncPage) and event.unsync and event.gfn in upper)]

    special_tells(patch, change)


def gives_another_fault(patch: Patch) -> None:
    """What it refuses at once, where the kernel first emulates, is another fault of the guest's."""
    refused: list[int] = []

    def fault(do: Callable[[], Any], side: ReplayedVm) -> object:
        value = do()
        if value is Outcome.INJECT and not refused:
            refused.append(side.vcpu.exception.cr2)
            assert side.vcpu.gva_to_gpa(side.vcpu.exception.cr2 + 8, 2) is None
            side.vcpu.inject()
        return value

    def change(_side: ReplayedVm, events: list[AnyEvent]) -> list[AnyEvent]:
        """Of that it tells nothing."""
        end = next((at for at, event in enumerate(events) if isinstance(event, e.MmuPageFaultRet)), len(events))
        return events[: end + 1]

    special_does(patch, inputs.Fault, fault)
    special_tells(patch, change)


def logs_too_much(patch: Patch) -> None:
    """A dirty log has a page that no table maps writable."""

    def change(_side: ReplayedVm, events: list[AnyEvent]) -> list[AnyEvent]:
        return [
            msgspec.structs.replace(event, mask=event.mask | 1 << 62) if isinstance(event, e.WriteProtectPtMasked) else event
            for event in events
        ]

    special_tells(patch, change)


class Planted(NamedTuple):
    """A fault, where the letter that is about it is seen without it, and what is told of it."""

    letter: str
    capture: str
    plant: Callable[[Patch], None]
    told: str


PLANTED = (
    Planted("a", "two_roots/pae_elsewhere", links_the_wrong_page, "makes no progress there"),
    Planted("a", "chaos/pae_chaos2", leaves_unsync_tables, "no rule explains that kvm_mmu_get_page differs in"),
    Planted("a", "chaos/p32_chaos0", gives_another_fault, "the guest gets PageFaultException("),
    Planted("g", "chaos/p32_quad0", logs_too_much, "no rule explains that write_protect_pt_masked differs in mask"),
    Planted("b", "shadow/p32_cr3", counts_a_root, "no rule explains that kvm_mmu_get_page differs in"),
    Planted("c", "edges/p32_shutcr3", goes_on_after_a_shutdown, "Enter() ends in "),
    Planted("d", "extra/pae_flood2", keeps_a_zapped_page, "no host memory at"),
    Planted("d", "shadow/pae_mmio", knows_mmio_for_ever, "no rule explains that the kernel does check_mmio_spte"),
    Planted("e", "two_roots/pae_asleep1", keeps_an_obsolete_root, "no rule explains that the kernel does free_roots"),
    Planted("f", "shadow/pae_cr3", makes_one_too_many, "no rule explains special pages that no root is made of"),
)


@special_designs
@pytest.mark.parametrize("planted", PLANTED, ids=[f"{planted.letter}-{planted.plant.__name__}" for planted in PLANTED])
def test_a_planted_fault_is_not_excused(planted: Planted, roots: str, monkeypatch: Patch) -> None:
    assert run(planted.capture, roots).ok
    planted.plant(monkeypatch)
    found = run(planted.capture, roots).divergence
    assert found is not None and planted.told in found.what


def parted_leaves(replay: Replay) -> Iterator[int]:
    """Host addresses of leaves that have differed, in tables that are in step."""
    special = replay.special_vm
    assert special is not None
    for page, index in special.parting.entries:
        if page in special.ours.valid and page not in special.ours.unsync | special.theirs.unsync and page.level == 1:
            at = special.ours.valid[page] + 8 * index
            if special.side.vm.read_host_u64(at) & 1:
                yield at


@special_designs
def test_an_entry_that_has_differed_may_not_map_another_frame(roots: str) -> None:
    """Letter g explains present and absent, and rights; not that the guest reads other memory."""
    replay = Replay(find("extra/pae_flood2")[0].load(), roots)
    while not (leaves := list(parted_leaves(replay))):
        assert replay.step()
        replay.at += 1
    vm = replay.special_vm.side.vm
    poke_host(vm, leaves[0], vm.read_host_u64(leaves[0]) ^ 0x1000)
    found = replay.run().divergence
    assert found is not None and "level 1 entry" in found.what
