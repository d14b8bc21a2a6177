# SPDX-License-Identifier: GPL-2.0-only
"""Runs a capture's guest on the machine and compares, line by line of what the guest says, with what the kernel did."""

from __future__ import annotations

from collections import Counter

from shadowmmu import EngineError, TripleFault
from shadowmmu.captures.capture import Capture, Dump
from shadowmmu.captures.lookahead import dumped_while_aged, stops_in_handlers
from shadowmmu.captures.markers import parse
from shadowmmu.captures.programme import in_words
from shadowmmu.check.compare.counters import compare_counters
from shadowmmu.check.compare.dumps import Difference, DumpComparison, LeafComparison
from shadowmmu.check.compare.ignore import CPU_BITS
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.compare.result import Diverged, Divergence, Row, page_at
from shadowmmu.check.replayed.replayed_vm import captured_roots
from shadowmmu.check.rerun.captured_cpu import NESTED_ACCESSED
from shadowmmu.check.rerun.entry_state import entry_states
from shadowmmu.check.rerun.kernel_stream import SHUTDOWN, Compared, Filter, Stream
from shadowmmu.check.rerun.result import RerunResult
from shadowmmu.check.rerun.vmm import Vmm
from shadowmmu.machine.ctrl_c import CtrlC
from shadowmmu.machine.emulator.decode import UnemulatedInstruction
from shadowmmu.machine.seam import CpuError
from shadowmmu.machine.vcpu.deliver import TaskSwitch
from shadowmmu.trace.events import AnyEvent, Marker

BEFORE, AFTER = 6, 4
"""Places shown about a divergence."""
MOST_EXITS = 100_000
PATIENCE = 1_000_000
"""Instructions without an exit; a captured guest does some thousands."""
_CANNOT_GO_ON = (EngineError, UnemulatedInstruction, CpuError, TaskSwitch)
FINAL = "final"
"""Name of the dump and the counters taken when the guest has ended."""


def not_rerun(capture: Capture) -> str:
    """Why a capture's guest cannot be run on this machine; empty: it can."""
    if len(entry_states(capture)) < capture.vcpus:
        return "its VMM, an older kit's, does not tell where its other vCPUs begin"
    if ["window"] in capture.guest.host_script:
        return "its VMM looks at an L2 before that has run, which is no exit of a guest"
    if stops_in_handlers(capture.events):
        return "its VMM, which steps it, stops it where a handler begins, which is no exit of a guest"
    return ""


class Rerun:
    """One capture on one machine."""

    def __init__(self, capture: Capture, roots: str | None = None) -> None:
        """`roots`: the captured kernel's, if not given."""
        self.capture = capture
        theirs = captured_roots(capture)
        roots = roots or theirs
        self.result = RerunResult(capture.name, roots)
        self.matcher = Matcher()
        guest_view = roots != theirs
        self.stream = Stream(capture, guest_view)
        self._filter = Filter(guest_view, capture.setup.tdp_mmu, capture.setup.series)
        self.vmm = Vmm(capture, roots, self.matcher, self._on_marker, self._on_stats)
        self.operation = "set-up"
        self.at = 0
        """The last event of the capture that was compared."""
        self._past: list[Row] = []
        self._ops = {op.i: op for op in capture.guest.ops}
        self._dumps = {dump.seq: dump for dump in capture.dumps if dump.tag != FINAL}
        self._aged = dumped_while_aged(capture.events)
        self._counters = {counters.tag: counters.values for counters in capture.counters}
        self._diverged: Diverged | None = None
        self._rootless = False
        """The guest ended because no root could be made for it."""

    def run(self) -> RerunResult:
        """To the guest's end, or to the first divergence."""
        try:
            self._run()
            self._finish()
        except Diverged as stop:
            self.result.divergence = stop.divergence
        except _CANNOT_GO_ON as error:
            self.result.divergence = self.diverge(f"the machine cannot go on: {error}").divergence
        self.result.explained = dict(sum((vcpu.cpu.adapted for vcpu in self.vmm.vcpus), Counter()))
        self.result.bugs = self.vmm.vm.bugs()
        return self.result

    def _run(self) -> None:
        with CtrlC(self._stop) as ctrl_c:
            while not self.vmm.ended and self._diverged is None:
                if not self._step():
                    self.vmm.tell(Marker(text=f"{SHUTDOWN} rip={self.vmm.cpu.state().rip:x}"))
                    break
                ctrl_c.check()
                self.vmm.after_exit()
                self.result.exits += 1
                if self.result.exits > MOST_EXITS:
                    raise self.diverge(f"the guest goes on after {self.result.exits} exits, where the kernel's has ended")
        if self._diverged is not None:
            raise self._diverged

    def _stop(self) -> None:
        self.vmm.cpu.stop()

    def _step(self) -> bool:
        """One exit of the guest; False: it has shut down, or the kernel finds no root for it."""
        vcpu = self.vmm.vcpu
        before = vcpu.cpu.executed
        vcpu.cpu.stop_at(before + PATIENCE)
        self.vmm.before_entry()
        try:
            vcpu.step()
            if vcpu.cpu.executed - before >= PATIENCE:
                raise self.diverge(f"the guest has done {PATIENCE} instructions without an exit, where the kernel's has ended")
        except TripleFault:
            self._rootless = True
            return False
        return not vcpu.processor.shutdown

    def _finish(self) -> None:
        self._compare(self.vmm.take())
        for dump in self.capture.dumps:
            if dump.tag == FINAL and not self._rootless:
                self._compare_tables(dump)
        self._compare_counters(FINAL)

    def diverge(self, what: str) -> Diverged:
        """A difference that is not one of two events."""
        return Diverged(Divergence(what, self.at, self.operation, list(self._past)))

    # --- called from within the CPU: what is raised waits for its end

    def _on_marker(self, ours: list[AnyEvent]) -> None:
        """The guest has said something."""
        if self._diverged is None:
            try:
                self._compare(ours)
                self._look(ours[-1])
            except Diverged as stop:
                self._diverged = stop

    def _on_stats(self, tag: str) -> None:
        if self._diverged is None:
            try:
                self._compare_counters(tag)
            except Diverged as stop:
                self._diverged = stop

    def _look(self, event: AnyEvent) -> None:
        """Note what the guest does now, and compare the tables if they were dumped here."""
        assert isinstance(event, Marker)
        mark = parse(event)
        self.result.said += 1
        if mark.action == "op":
            op = self._ops.get(mark["op"])
            self.operation = f"op {mark['op']}" + (f": {in_words(op)}" if op else "") + (f" ({op.note})" if op and op.note else "")
        if mark["seq"] in self._dumps:
            self._compare_tables(self._dumps[mark["seq"]])

    # --- comparing

    def _compare(self, ours: list[AnyEvent]) -> None:
        """What happened up to the guest's next words must be what the kernel has up to there."""
        kernel = self.stream.next_segment()
        ours, quiet = self._sort(ours)
        for i in range(max(len(kernel), len(ours))):
            self._follow(quiet[i] if i < len(quiet) else [])
            theirs = kernel[i] if i < len(kernel) else None
            mine = ours[i] if i < len(ours) else None
            self.at = theirs.at if theirs is not None else self.at
            why = self._difference(theirs, mine)
            if why:
                after = [Row(k, o, j == 0) for j, (k, o) in enumerate(_pairs([one.event for one in kernel[i:]], ours[i:]))]
                raise Diverged(Divergence(why, self.at, self.operation, self._past[-BEFORE:] + after[:AFTER]))
            assert theirs is not None and mine is not None
            self.matcher.follow(mine)
            self.result.events += 1
            self._past.append(Row(theirs.event, mine, False))
        self._follow(quiet[-1])
        del self._past[:-BEFORE]

    def _sort(self, events: list[AnyEvent]) -> tuple[list[AnyEvent], list[list[AnyEvent]]]:
        """Those to be compared; and those that only tell of tables that come and go, before each of them and behind the last."""
        compared: list[AnyEvent] = []
        quiet: list[list[AnyEvent]] = [[]]
        for event in events:
            if self._filter.passes(event):
                compared.append(event)
                quiet.append([])
            else:
                quiet[-1].append(event)
        return compared, quiet

    def _follow(self, events: list[AnyEvent]) -> None:
        for event in events:
            self.matcher.follow(event)

    def _difference(self, theirs: Compared | None, machine: AnyEvent | None) -> str:
        if theirs is None:
            return f"the machine does {machine.name}, the kernel does not" if machine else ""
        kernel = theirs.event
        if machine is None:
            return f"the kernel does {kernel.name}, the machine does not"
        fields = self.matcher.differences(kernel, machine, theirs.skip)
        if fields == ["event"]:
            return f"the kernel does {kernel.name}, the machine {machine.name}"
        return f"{kernel.name} differs in {', '.join(fields)}" if fields else ""

    def _compare_tables(self, dump: Dump) -> None:
        """The tables that the CPU runs on, A and D included: it has set them itself. On other roots what each address maps to."""
        root, level = self.vmm.vcpu.witness.entered_on
        if self.capture.setup.tdp_mmu and not self.vmm.vcpu.processor.vcpu.guest_mode:
            return  # the TDP MMU's
        if not dump.root or root is None or (self.stream.guest_view and self.stream.recycled):
            return
        if dump.level != level:
            raise self.diverge(f"dump {dump.tag}: the kernel's root has level {dump.level}, ours {level}")
        entries, found = self._compare_leaves(dump, root) if self.stream.guest_view else self._compare_entries(dump, root)
        if found:
            page = page_at(self.vmm.vm, found.table)
            raise Diverged(Divergence(f"dump {dump.tag}: {found.text}", self.at, self.operation, page=page))
        self.result.dumps += 1
        self.result.dump_entries += entries

    def _compare_leaves(self, dump: Dump, root: int) -> tuple[int, Difference | None]:
        comparison = LeafComparison(self.vmm.vm, self.matcher, dump)
        found = comparison.run(root)
        return comparison.entries, found

    def _compare_entries(self, dump: Dump, root: int) -> tuple[int, Difference | None]:
        """Of nested tables what the captured CPU marked is taken over: ours does not set A in their last level."""
        comparison = DumpComparison(self.vmm.vm, self.matcher, dump, CPU_BITS if self.vmm.vm.tdp else 0, dump.seq in self._aged)
        found = comparison.run(root)
        if comparison.taken_over:
            self.vmm.cpu.adapted[NESTED_ACCESSED] += comparison.taken_over
        return comparison.entries, found

    def _compare_counters(self, tag: str) -> None:
        if tag not in self._counters or self.stream.guest_view:
            return
        compared, differing = compare_counters(self._counters[tag], self.vmm.vm.counters(), self.capture)
        if differing:
            told = ", ".join(f"{name} {theirs} in the kernel, {ours} here" for name, theirs, ours in differing)
            raise self.diverge(f"counters at {tag}: {told}")
        self.result.counters += compared


def _pairs(kernel: list[AnyEvent], ours: list[AnyEvent]) -> list[tuple[AnyEvent | None, AnyEvent | None]]:
    """Two lists side by side, the shorter one filled up."""
    length = max(len(kernel), len(ours))
    left: list[AnyEvent | None] = [*kernel, *[None] * (length - len(kernel))]
    right: list[AnyEvent | None] = [*ours, *[None] * (length - len(ours))]
    return list(zip(left, right, strict=True))


def rerun(capture: Capture, roots: str | None = None) -> RerunResult:
    """Run one capture's guest on a fresh machine."""
    return Rerun(capture, roots).run()
