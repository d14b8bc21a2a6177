# SPDX-License-Identifier: GPL-2.0-only
"""What people look for in such a trace: faults that come again, walks of another mode than the pages, large pages that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from shadowmmu.border.limits import KINDS
from shadowmmu.engine.arena.role import Role
from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.faults import CUT, FIXED, IDLE, NOTHING, SPURIOUS, Fault
from shadowmmu.trace import events as e
from shadowmmu.trace.layouts import describe

KEPT = 50_000
"""Addresses and frames that are followed; the least seen are dropped when there are more."""
READ_OR_EXECUTE, LARGE = 5, 0x80
STORM = 3
"""Faults alike, one after the other, that make a storm."""
NARROW, DIRECT = int(Role.HAS_4_BYTE_GPTE), int(Role.DIRECT)


UNTOLD = "No event of the MMU is in the trace: echo 1 > /sys/kernel/tracing/events/kvmmmu/enable tells what it does with the fault."


class Answer(msgspec.Struct, kw_only=True):
    """A finding: what, how often, the first event of it, and why in the kernel's terms. `address`: of the fault, or of the frame."""

    what: str
    count: int
    first: int
    why: str
    address: Hex


class _Again(msgspec.Struct, gc=False):
    """Faults of one address and error code."""

    first: int
    count: int = 0
    row: int = 0
    idle: int = 0
    same: int = 0
    unrequested: int = 0
    leaf: Any = None
    outcome: str = ""
    why: str = ""


class Answers:
    """Collects from the faults and entries of one VM."""

    def __init__(self) -> None:
        self.faults: dict[tuple[int, int], _Again] = {}
        self.mismatched: dict[tuple[int, str], list[int]] = {}
        self.sizes: dict[int, list[int]] = {}
        self.refusals: dict[tuple[str, str], list[int]] = {}
        self._last: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.faults) + len(self.mismatched) + len(self.sizes) + len(self.refusals)

    def thin(self) -> None:
        """Keep what was seen most."""
        self.faults = _most(self.faults, lambda again: again.count, KINDS)
        self.mismatched = _most(self.mismatched, lambda seen: seen[0], KINDS)
        self.sizes = _most(self.sizes, lambda seen: seen[1], KINDS)
        self.refusals = _most(self.refusals, lambda seen: seen[0], KINDS)

    def fault(self, fault: Fault) -> None:
        key = (fault.address >> 12, fault.code)
        again = self.faults.get(key)
        if again is None:
            if len(self.faults) >= KEPT:
                self.faults = _most(self.faults, lambda again: again.count, KEPT // 2)
            again = self.faults[key] = _Again(fault.number)
        again.count += 1
        outcome = fault.outcome
        if key == self._last:
            again.row += 1
            again.same += outcome == FIXED and fault.leaf == again.leaf
        self._last = key
        again.idle += outcome in IDLE
        again.unrequested += outcome == NOTHING and fault.walked > 0
        again.leaf = fault.leaf
        again.why = fault.why
        if outcome != CUT:
            again.outcome = outcome

    def page(self, number: int, top: int, event: e.GetPage) -> None:
        """A page that a fault of a walk got, beside the mode which the walk had: 2 levels have entries of 4 bytes."""
        role = int(event.role)
        if role & DIRECT or (role & 15) >= top:
            return
        narrow = bool(role & NARROW)
        if (top == 2) != narrow:
            mode = {2: "2-level", 3: "PAE", 4: "4-level", 5: "5-level"}.get(top, f"{top}-level")
            seen = self.mismatched.setdefault((int(event.gfn), f"a {mode} walk, and a page of role {describe(role)}"), [0, number])
            seen[0] += 1

    def refused(self, number: int, address: int, what: str, why: str) -> None:
        """A walk that met what a sound guest's tables do not have, or one of the emulator's that failed. `why`: by its entries."""
        if len(self.refusals) >= KEPT:
            self.refusals = _most(self.refusals, lambda seen: seen[0], KEPT // 2)
        seen = self.refusals.setdefault((f"{what} {address >> 12 << 12:x}", why), [0, number, address])
        seen[0] += 1

    def changed(self, number: int, event: e.TdpMmuSpteChanged) -> None:
        """An entry of the TDP MMU: one that is a leaf now, or was one."""
        for spte in (event.old_spte, event.new_spte):
            if spte & READ_OR_EXECUTE and (event.level == 1 or spte & LARGE):
                self.entry(number, int(event.level), int(event.gfn))

    def entry(self, number: int, level: int, gfn: int) -> None:
        """[level, changes to a larger size, first of them, small entries] of a frame's 2 MiB."""
        place = gfn >> 9
        if level > 2:
            return
        seen = self.sizes.get(place)
        if seen is None:
            if len(self.sizes) >= KEPT:
                self.sizes.pop(next(iter(self.sizes)))
            self.sizes[place] = [level, 0, 0, level == 1]
            return
        if level == 2 and seen[0] == 1:
            seen[1] += 1
            seen[2] = seen[2] or number
        seen[0] = level
        seen[3] += level == 1

    def all(self, requests_are_told: bool, mmu_is_told: bool) -> Iterator[Answer]:
        """The findings. `requests_are_told`: the trace has kvm_mmu_spte_requested, so that it may be missed. `mmu_is_told`: it has
        any event of the MMU."""
        for (gfn, what), (count, first) in _top(self.mismatched.items(), lambda item: -item[1][0]):
            why = "The role was not updated when the guest changed its mode (kvm_mmu_reset_context, kvm_init_mmu), or it is another MMU's."
            yield Answer(what=what, count=count, first=first, why=why, address=Hex(gfn))
        back = [(place, seen) for place, seen in self.sizes.items() if seen[1]]
        for place, seen in _top(back, lambda item: -item[1][1]):
            why = (
                f"{seen[3]} entries of 4 KiB were there before: kvm_mmu_hugepage_adjust found nothing against the larger size any more, "
                "as after dirty logging, when the host has dropped the pages (kvm_unmap_hva_range), or when a shadowed table in it went."
            )
            what = f"a large page replaces small ones of gfn {place << 9:x} to {(place << 9) + 511:x}"
            yield Answer(what=what, count=seen[1], first=seen[2], why=why, address=Hex(place << 9))
        for (what, why), (count, first, address) in _top(self.refusals.items(), lambda item: -item[1][0]):
            yield Answer(what=what, count=count, first=first, why=f"{why[0].upper()}{why[1:]}.", address=Hex(address))
        yield from self._storms(requests_are_told, mmu_is_told)

    def _storms(self, told: bool, mmu: bool) -> Iterator[Answer]:
        storms = [(key, again) for key, again in self.faults.items() if again.row >= STORM - 1 or (told and again.unrequested)]
        for (page, code), again in _top(storms, lambda item: -item[1].count):
            error = f"error code {code:x}" if code >= 0 else "a walk"
            what = (
                f"a fault at {page << 12:x}, {error}, comes again {again.count:,} times"
                if again.count > 1
                else f"a fault at {page << 12:x}"
            )
            yield Answer(what=what, count=again.count, first=again.first, why=_why(again, told) if mmu else UNTOLD, address=Hex(page << 12))


def _why(again: _Again, told: bool) -> str:
    if again.unrequested and told:
        return (
            "The walk succeeds and no entry is requested. An entry that it read has changed since (FNAME(gpte_changed)), if only by its "
            "own A or D bit; an MMU notifier or a root's end asks to try again (is_page_fault_stale); or the host cannot give the page."
        )
    if again.outcome == SPURIOUS:
        return (
            "There is nothing to fix: the entry allows the access (is_access_allowed). The CPU walks another root or a stale translation."
        )
    if again.outcome == NOTHING:
        return "Neither a walk nor an entry follows: the fault was handled before the MMU, or its events were not traced."
    if again.same:
        return f"The same entry is set again {again.same:,} times: something takes it away between, or the CPU does not see it."
    detail = f" {again.why[:1].upper()}{again.why[1:]}." if again.why else ""
    if not again.outcome:
        return "Each time the trace has a gap, or ends, before the fault does."
    return f"It ends each time as: {again.outcome}.{detail}"


def _most(found: dict[Any, Any], count: Callable[[Any], int], most: int) -> dict[Any, Any]:
    return dict(sorted(found.items(), key=lambda item: -count(item[1]))[:most])


def _top(items: Any, order: Any, most: int = 8) -> list[Any]:
    return sorted(items, key=order)[:most]
