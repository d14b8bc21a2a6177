# SPDX-License-Identifier: GPL-2.0-only
"""A VM with roots of special pages that is given what the kernel's guest did, and held against the kernel rule by rule.

The VM of the replay has the kernel's own roots, and does, event by event, what the kernel did. The one beside it gets the same
inputs. Their events upon each are aligned, as are their tables and counters where the VMM dumped the kernel's: what is
not equal must be explained by a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from shadowmmu import Outcome, PageFaultException
from shadowmmu.captures.capture import Capture, Op
from shadowmmu.check.compare.dumps import is_link
from shadowmmu.check.compare.ignore import CPU_BITS
from shadowmmu.check.compare.result import Row
from shadowmmu.check.compare.streams import AFTER, BEFORE, Streams
from shadowmmu.check.replayed.inputs import (
    Answer,
    DirtyLog,
    Enter,
    Fault,
    Inject,
    Input,
    Translate,
    Unprotect,
    UnprotectAddress,
    WriteEmulated,
    answer,
)
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.check.special_roots.align import BOTH, PageMatcher, Parting, Place
from shadowmmu.check.special_roots.answers import gives_exception, is_refused_at_once, letter_of
from shadowmmu.check.special_roots.counter_lead import COUNTED, CounterLead
from shadowmmu.check.special_roots.fault_path import is_unlinked, way
from shadowmmu.check.special_roots.look import Look, look_at
from shadowmmu.check.special_roots.page_census import Census
from shadowmmu.check.special_roots.roots_met import keeps_obsolete, leads_nowhere, special_tables
from shadowmmu.check.special_roots.rules import RULES
from shadowmmu.check.special_roots.tables import PairedTables
from shadowmmu.engine.roots.designs import find_design
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.fields import FRAME_BITS

T = TypeVar("T")
MOST = 12
"""Faults that one access of the guest may need."""
FIXED = (Outcome.FIXED, Outcome.SPURIOUS)
P_RSVD, W, U = 9, 2, 4
BEHIND = "user space wrote to a table of the guest behind the MMU: which stale entries go on being used depends on the roots"
STALE = "the guest used a translation on one side that is stale, or is read as before a change of mode, and not on the other"


class Parted(Exception):
    """A difference that no rule explains."""

    def __init__(self, what: str, rows: Sequence[Row] = (), table: int = 0) -> None:
        super().__init__(what)
        self.what, self.rows, self.table = what, list(rows), table


class SpecialVm:
    """The VM with `roots` beside `kernel`, that of a replay. Every method may raise `Parted`."""

    def __init__(self, capture: Capture, roots: str, kernel: ReplayedVm, streams: Streams) -> None:
        self.kernel = kernel
        self.streams = streams
        self.theirs, self.ours = Census(), Census()
        self.matcher = PageMatcher(self.theirs, self.ours)
        self.side = ReplayedVm(capture, roots, self.matcher)
        self.roots = f"{roots} roots"
        self._rules = [(letter, rule) for letter, rule in RULES if letter in find_design(roots).differences]
        self.nested_paging = capture.setup.npt
        self.differences: Counter[str] = Counter()
        """Its letter -> how often it explained an event, an answer, an entry of a table or a counter."""
        self.compared = 0
        """Events that are equal."""
        self.until = ""
        """Why it goes on no longer; empty: it does."""
        self.apart: Parted | None = None
        """What no rule explained, if oracle and audit look on: from there on only what guest and user space see is compared."""
        self.parting = Parting()
        self.lead = CounterLead()
        self._past: list[Row] = []
        self._native = False
        """The kernel emulates a store, while here the CPU does it."""
        self._refused: PageFaultException | None = None
        """What the guest was given, where the kernel emulates the instruction, and is to be refused by the guest's tables in its turn."""
        self._behind = False
        """User space has written to a table behind the MMU."""
        for cpu in kernel.cpus:
            cpu.poked = self._poked

    def _poked(self, hpa: int, data: bytes) -> None:
        """The CPU has set bits in the guest's tables on its own."""
        pfn = self.matcher.frames.ours.get(hpa >> 12, hpa >> 12)
        self.side.vm.write_host(pfn << 12 | hpa & 0xFFF, data)

    def user_space_writes(self, gpa: int) -> None:
        """To guest memory, of which the MMU does not hear."""
        self._behind = self._behind or bool(self.theirs.tables.get(gpa >> 12) or self.ours.tables.get(gpa >> 12))

    def new_exit(self) -> None:
        self._native = False

    # --- inputs

    def look(self, given: object) -> Look:
        """To be taken before the kernel's VM gets the input."""
        return look_at(given, (self.kernel, self.side), (self.theirs, self.ours), self.parting)

    def follow(self, given: Input[T], theirs: Answer[T], events: Sequence[AnyEvent], look: Look) -> None:
        """Give it what the kernel's VM was given, and hold what it does against `theirs` and `events`."""
        if self.until:
            return
        if self.apart is not None:
            self._follow_as_seen(given, theirs)
            return
        with self._parting():
            self._follow_each_event(given, theirs, events, look)

    @contextmanager
    def _parting(self) -> Iterator[None]:
        """Where the two part it goes on without their events, if there are judges."""
        try:
            yield
        except Parted as stop:
            if self.side.judge is None:
                raise
            self.apart = stop
            self.side.events()

    def _follow_as_seen(self, given: Input[T], theirs: Answer[T]) -> None:
        """What the guest and user space get of it must be the same."""
        ours = answer(given, self.side)
        self.side.events()
        if isinstance(given, DirtyLog):
            return  # the judge has seen that no page is missing; the kernel may mark one that nobody wrote
        injected = [isinstance(given, Fault) and answered.value is Outcome.INJECT for answered in (theirs, ours)]
        same_fault = injected[0] == injected[1] and (not injected[0] or self.kernel.vcpu.exception == self.side.vcpu.exception)
        same_answer = isinstance(given, Fault | Enter | Unprotect | UnprotectAddress) or theirs.value == ours.value
        if not same_fault or not same_answer:
            raise Parted(f"{given} ends in {theirs.told} in the kernel, in {ours.told} on {self.roots}; before, {self.apart}", self._past)

    def _follow_each_event(self, given: Input[T], theirs: Answer[T], events: Sequence[AnyEvent], look: Look) -> None:
        self.theirs.now += 1
        self.ours.now += 1
        self.lead.count(events, 1)
        if isinstance(given, Fault):
            self.lead.count_fault(given.code, theirs.value, events, 1)
        if self._native and isinstance(given, Translate | WriteEmulated | Inject):
            self._store_natively(given, events)
            return
        at = Place(given, self.side, (self.theirs, self.ours), self.matcher, self.parting)
        at.whole = list(look.whole)
        at.ahead, at.first = look.ahead, self.side.host.live[given.slot][0] >> 12 if isinstance(given, DirtyLog) else 0
        at.kernel_has_root = self.kernel.vcpu.mmu_name in look.rooted
        ours = self._give(given, at)
        for event in events:
            at.kernel.add(event, self._is_compared(event))
            at.kernel_keeps_root = at.kernel_keeps_root or (isinstance(event, e.PrepareZapPage) and event.root_count > 0)
        if isinstance(given, Enter):
            at.kernel_shuts_down = theirs.error is not None and ours.error is None and leads_nowhere(self.side)
            at.keeps_obsolete = keeps_obsolete(self.side)
        at.settle(look.paths)
        self._align(at)
        if at.parted and isinstance(given, Fault):
            self._suspect_way(given.address)
        self._confirm()
        self._judge(given, theirs, ours, at, look)

    def _is_compared(self, event: AnyEvent) -> bool:
        return self.streams.is_compared(event) or isinstance(event, e.SpecialAlloc | e.SpecialFree | e.ZapOldest)

    def _give(self, given: Input[T], at: Place) -> Answer[T]:
        """Where a special page is not linked yet the CPU faults there first, without P or RSVD."""
        if isinstance(given, Fault):
            at.unlinked = is_unlinked(self.side, self.ours, given.address)
            if at.unlinked and given.code & P_RSVD:
                linking = answer(Fault(given.address, given.code & ~P_RSVD), self.side)
                if self._is_done(given, linking):
                    self._take(at, given, linking)
                    return linking
                at.unlinked = False
                self.differences["a"] += 1
                self._take_quietly(linking.value)
        ours = answer(given, self.side)
        self._take(at, given, ours)
        return ours

    def _is_done(self, given: Fault, linking: Answer[Outcome]) -> bool:
        """The fault of the missing link has done all that the kernel's fault is about."""
        if linking.value in (Outcome.EMULATE, Outcome.INJECT) or is_unlinked(self.side, self.ours, given.address):
            return True
        return self.side.cpu.reaches(given.address, bool(given.code & W), bool(given.code & U))

    def _take(self, at: Place, given: object, ours: Answer[T]) -> None:
        events = self.side.events()
        self.lead.count(events, -1)
        if isinstance(given, Fault):
            self.lead.count_fault(0 if at.unlinked else given.code, ours.value, events, -1)
        for event in events:
            at.engine.add(event, self._is_compared(event))
            if isinstance(event, e.MmuLoad):
                self.parting.forgotten = ""

    def _take_quietly(self, outcome: Outcome | None) -> None:
        """What the kernel had no cause for: a fault with this outcome, or an emulated store."""
        events = self.side.events()
        self.lead.count(events, -1)
        if outcome is not None:
            self.lead.count_fault(0, outcome, events, -1)
        for event in events:
            self.ours.follow(event)
            self.parting.part(event, self.theirs, self.ours)

    def _store_natively(self, given: object, events: Sequence[AnyEvent]) -> None:
        """The kernel emulates a store; here the guest does it, as nothing shadows the table any more."""
        self.differences["g"] += len(events)
        for event in events:
            self.theirs.follow(event)
        if isinstance(given, WriteEmulated):
            self.side.vm.write_guest(given.gpa, given.data)
            self.side.cpu.stored(self.side.vm.host_address(given.gpa) or 0, len(given.data))

    def _suspect_way(self, address: int) -> None:
        """The entries for an address may be others in the two VMs from now on."""
        for side, census in ((self.kernel, self.theirs), (self.side, self.ours)):
            self.parting.suspects |= {(step.page, step.at) for step in way(side, census, address)[0] if step.page is not None}

    def _confirm(self) -> None:
        """Of the entries that may have parted in this input those that have."""
        for page, at in self.parting.suspects:
            theirs, ours = self.theirs.valid.get(page), self.ours.valid.get(page)
            if theirs is not None and ours is not None and not self._is_equal(page.level, theirs + 8 * at, ours + 8 * at):
                self.parting.entries.add((page, at))
        self.parting.suspects.clear()

    def _is_equal(self, level: int, theirs: int, ours: int) -> bool:
        kernel, special = self.kernel.vm.read_host_u64(theirs), self.side.vm.read_host_u64(ours)
        if is_link(kernel, level) and is_link(special, level):
            return self.theirs.name(kernel & FRAME_BITS) == self.ours.name(special & FRAME_BITS)
        return not is_link(kernel, level) and not is_link(special, level) and self.matcher.leaf(kernel, special, CPU_BITS)

    # --- comparison

    def _align(self, at: Place) -> None:
        while at.k is not None or at.s is not None:
            if not at.differing():
                self._past.append(Row(at.k, at.s, False))
                at.take(BOTH)
                self.compared += 1
                continue
            for letter, rule in self._rules:
                taken = rule(at)
                if taken is not None:
                    self.differences[letter] += 1
                    at.take(taken)
                    break
            else:
                raise Parted(self._told(at), self._rows(at))
        del self._past[:-BEFORE]

    def _told(self, at: Place) -> str:
        fields = at.differing()
        if at.k is not None and fields != ["event"]:
            return f"no rule explains that {at.k.name} differs in {', '.join(fields)} on {self.roots}"
        kernel, special = ("nothing" if event is None else event.name for event in (at.k, at.s))
        return f"no rule explains that the kernel does {kernel}, {self.roots} {special}"

    def _rows(self, at: Place) -> list[Row]:
        rows = self._past[-BEFORE:]
        for i in range(min(AFTER, max(len(at.kernel.ahead), len(at.engine.ahead)))):
            kernel, engine = (stream.ahead[i] if i < len(stream.ahead) else None for stream in (at.kernel, at.engine))
            rows.append(Row(kernel, engine, i == 0))
        return rows

    def _judge(self, given: object, theirs: Answer[T], ours: Answer[T], at: Place, look: Look) -> None:
        """Answers must be equal, or differ by what the two met."""
        self._judge_exceptions(given, theirs, ours)
        if (type(theirs.error), theirs.value) == (type(ours.error), ours.value):
            return
        letter = letter_of(given, theirs, ours, at, look.shadowed)
        if not letter:
            raise Parted(f"{given} ends in {theirs.told} in the kernel, in {ours.told} on {self.roots}", self._past)
        self.differences[letter] += 1
        self._native = isinstance(given, Fault) and theirs.value == Outcome.EMULATE and ours.value in FIXED
        if is_refused_at_once(given, theirs, ours, at):
            self._refused = self.side.vcpu.exception

    def _judge_exceptions(self, given: object, theirs: Answer[T], ours: Answer[T]) -> None:
        """The guest must get the same; and what was refused here at once the kernel's emulator must be refused before it goes on."""
        kernel = self.kernel.vcpu.exception if gives_exception(given, theirs, ours) else None
        if kernel is not None and (kernel != self.side.vcpu.exception or self._refused not in (None, kernel)):
            raise Parted(f"{given}: the guest gets {kernel} in the kernel, {self._refused or self.side.vcpu.exception} on {self.roots}")
        if self._refused is not None and isinstance(given, Enter):
            raise Parted(f"the guest gets {self._refused} on {self.roots}, and nothing in the kernel")
        self._refused = None if isinstance(given, Inject) else self._refused

    def compare_tables(self, tag: str) -> int:
        """Hold the tables against the kernel's as they are now; how many entries."""
        if self.until or self.apart is not None:
            return 0
        with self._parting():
            return self._compare_each_entry(tag)
        return 0

    def _compare_each_entry(self, tag: str) -> int:
        if self.ours.special != special_tables(self.side):
            raise Parted(f"dump {tag}: no rule explains special pages that no root is made of")
        tables = PairedTables((self.kernel, self.side), (self.theirs, self.ours), self.parting, self.matcher)
        for found in tables.differences():
            if not found.letter:
                raise Parted(f"dump {tag}: no rule explains that {found.text}", table=found.table)
            self.differences[found.letter] += 1
        return tables.entries

    def compare_counters(self, tag: str) -> None:
        """They differ by as much as what they count; those that no event tells of only where something else differed before."""
        if self.until or self.apart is not None:
            return
        with self._parting():
            self._compare_each_counter(tag)

    def _compare_each_counter(self, tag: str) -> None:
        theirs, ours = self.kernel.vm.counters(), self.side.vm.counters()
        for name in self.lead.differences(theirs, ours):
            if name in COUNTED or not self.differences.keys() - {"f"}:
                raise Parted(f"counters at {tag}: no rule explains {name}: {theirs[name]} in the kernel, {ours[name]} on {self.roots}")
            self.differences["g"] += 1

    # --- the guest's own accesses

    def store(self, op: Op, data: bytes) -> None:
        """A plain store that the guest has done; what is not linked yet is linked for it first."""
        for _ in range(0 if self.until else MOST):
            if self.side.cpu.store(op.va, data, op.cpl == 3):
                return
            outcome = self._fault(op, W)
            if outcome == Outcome.EMULATE:
                self._emulate(op, data)
                return
            if outcome == Outcome.INJECT and self._stale():
                return
        if not self.until:
            raise Parted(f"the guest stored to {op.va:x} without a fault, but on {self.roots} it makes no progress there")

    def load(self, op: Op, data: bytes) -> None:
        """A plain load that the guest has done: the same value."""
        for _ in range(0 if self.until else MOST):
            found = self.side.cpu.load(op.va, len(data), op.cpl == 3)
            if found is None:
                if self._fault(op, 0) == Outcome.INJECT and self._stale():
                    return
                continue
            if found != data and not self._behind:
                if self._stale():
                    return
                raise Parted(f"the guest read {data[::-1].hex()} at {op.va:x}, on {self.roots} it reads {found[::-1].hex()}")
            self.until = BEHIND if found != data else ""
            return
        if not self.until:
            raise Parted(f"the guest loaded from {op.va:x} without a fault, but on {self.roots} it makes no progress there")

    def _fault(self, op: Op, code: int) -> Outcome:
        """A fault of an access that had none in the kernel."""
        address = self.side.cpu.missed
        if self.apart is None:
            self.differences["a" if is_unlinked(self.side, self.ours, address) else "g"] += 1
        outcome = answer(Fault(address, code | self._user(op)), self.side).get()
        if self.apart is not None:
            self.side.events()
            return outcome
        self._take_quietly(outcome)
        self._suspect_way(address)
        self._confirm()
        return outcome

    def _stale(self) -> bool:
        """The guest goes another way here than in the kernel. Judges have seen that a CPU may go either: the replay ends."""
        if self.side.judge is not None:
            self.until = STALE
        return bool(self.until)

    def _emulate(self, op: Op, data: bytes) -> None:
        """A store to a table that only here is shadowed."""
        gpa = self.side.vcpu.gva_to_gpa(op.va, W | self._user(op))
        if gpa is None:
            raise Parted(f"the guest stored to {op.va:x}, but on {self.roots} its tables refuse that")
        answer(WriteEmulated(gpa, data), self.side)
        if self.apart is None:
            self._take_quietly(None)

    def _user(self, op: Op) -> int:
        return U if op.cpl == 3 or self.nested_paging else 0
