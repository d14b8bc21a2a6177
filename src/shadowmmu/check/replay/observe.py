# SPDX-License-Identifier: GPL-2.0-only
"""What can be seen beside events: values that the guest read, dumps of the tables, dirty logs, counters."""

from __future__ import annotations

from collections.abc import Iterable

from shadowmmu.captures.capture import Dump
from shadowmmu.captures.lookahead import dumped_while_aged
from shadowmmu.captures.markers import Mark, parse
from shadowmmu.check.compare.counters import compare_counters
from shadowmmu.check.compare.dumps import DumpComparison
from shadowmmu.check.compare.result import page_at
from shadowmmu.check.replay.state import ReplayState
from shadowmmu.check.replayed.cpu import ACCESSED_DIRTY
from shadowmmu.check.replayed.inputs import DirtyLog
from shadowmmu.trace.events import AnyEvent, Marker

FINAL = "final"
LOADS = ("rd", "l2_rd")


class Observer:
    """Looks at a replay where the capture tells what was seen."""

    def __init__(self, replay: ReplayState) -> None:
        self.replay = replay
        capture = replay.capture
        self.dumps = {dump.seq: dump for dump in capture.dumps if dump.tag != FINAL}
        """Those still to come, by the guest's marker that they were taken at."""
        self.last_dump = next((dump for dump in capture.dumps if dump.tag == FINAL), None)
        self.aged = dumped_while_aged(capture.events)
        self.counters = {counters.tag: counters.values for counters in capture.counters}
        self.expects_value = False
        """The value that the guest tells next was loaded from memory by the present operation."""
        self.emulated = False
        """The kernel has emulated an instruction of that operation: what it loads it reads itself, by no table of the CPU's."""

    def guest_says(self, mark: Mark) -> None:
        dump = self.dumps.pop(mark["seq"], None)
        if dump is not None:
            self.compare_dump(dump)
        if mark.action in ("op", "l2op"):
            programme = self.replay.l1 if mark.action == "op" else self.replay.l2
            late = programme.start(mark[mark.action])
            if late is not None:
                self.replay.done_without_exit(late)
            self.expects_value = programme.now is not None and programme.now.op in LOADS
            self.emulated = False
        elif mark.action == "pf":
            self.expects_value = False
            self.replay.l1.faulted()
        elif mark.action == "val" and self.expects_value:
            self.expects_value = False
            self._loaded(mark["val"])
        elif mark.action == "hostcall":
            self._script(mark["hostcall"])

    def finish(self) -> None:
        missed = next(iter(self.dumps.values()), None)
        if missed is not None:
            raise self.replay.diverge(f"dump {missed.tag} was taken at the guest's marker {missed.seq}, which never came")
        if self.last_dump:
            self.compare_dump(self.last_dump)
        if FINAL in self.counters:
            self.compare_counters(FINAL)

    def _loaded(self, value: int) -> None:
        """The guest tells what it read: our memory must hold it, through our tables."""
        replay = self.replay
        op = replay.programme().now
        if op is None:
            return
        data = replay.cpu.load(op.va, min(op.size, 4), op.cpl == 3)
        if data is None and self.emulated:
            return
        if data is None:
            raise replay.diverge(f"the guest loaded from {op.va:x} without a fault, but our tables do not allow it")
        ours = int.from_bytes(data, "little")
        # With nested paging the CPU sets A and D in the guest's tables on its own.
        allowed = ACCESSED_DIRTY if replay.capture.setup.npt else 0
        if (ours ^ value) & (1 << 8 * min(op.size, 4)) - 1 & ~allowed and not self._is_unknown(op.va):
            raise replay.diverge(f"the guest read {value:x} at {op.va:x}; through our tables there is {ours:x}")
        if replay.special_vm is not None:
            replay.special_vm.load(op, data)
        replay.result.loads += 1

    def _is_unknown(self, gva: int) -> bool:
        """Memory that the CPU or the kernel writes without a trace: stacks, descriptors, the VMCB."""
        replay = self.replay
        state = replay.capture.guest.entry_state
        known = {state.get(name, 0) >> 12 for name in ("gdt", "tss", "idt")} | {(state.get("rsp", 0) - 1) >> 12}
        return gva >> 12 in known | {replay.vmcb >> 12}

    def _script(self, number: int) -> None:
        """Counters that the VMM's script takes before its first action."""
        scripts = self.replay.capture.guest.host_script
        for command in scripts[number] if number < len(scripts) else []:
            words = command.split()
            if words[0] != "stats":
                break
            if words[1] in self.counters:
                self.compare_counters(words[1])

    def dirty_log(self, slot: int, later: Iterable[AnyEvent]) -> None:
        """KVM_GET_DIRTY_LOG: `later` tells which pages the kernel had."""
        replay = self.replay
        if slot not in replay.host.live:
            return
        bitmap = replay.give(DirtyLog(slot))
        base = replay.host.live[slot][0] >> 12
        ours = {base + i for i in range(8 * len(bitmap)) if bitmap[i >> 3] >> (i & 7) & 1}
        theirs = set()
        for event in later:
            mark = parse(event) if isinstance(event, Marker) else None
            if mark and mark.action == "dirty":
                theirs.add(mark["gfn"])
            elif mark:
                break
        if ours != theirs:
            raise replay.diverge(f"dirty log of slot {slot}: the kernel has {hexes(theirs)}, the engine {hexes(ours)}")

    def compare_dump(self, dump: Dump) -> None:
        """The shadow tables as a whole; not those of the TDP MMU."""
        replay = self.replay
        cpu = replay.cpu
        if not dump.root or not cpu.root or replay.streams.foreign_l1():
            return
        if dump.level != cpu.level:
            raise replay.diverge(f"dump {dump.tag}: the kernel's root has level {dump.level}, ours {cpu.level}")
        comparison = DumpComparison(replay.vm, replay.side.matcher, dump, aged=dump.seq in self.aged)
        found = comparison.run(cpu.root)
        if found:
            raise replay.diverge(f"dump {dump.tag}: {found.text}", page_at(replay.vm, found.table))
        entries = comparison.entries if replay.special_vm is None else replay.special_vm.compare_tables(dump.tag)
        replay.result.dumps += 1
        replay.result.dump_entries += entries

    def compare_counters(self, tag: str) -> None:
        replay = self.replay
        compared, differing = compare_counters(self.counters[tag], replay.vm.counters(), replay.capture)
        if differing:
            told = ", ".join(f"{name} {theirs} in the kernel, {ours} here" for name, theirs, ours in differing)
            raise replay.diverge(f"counters at {tag}: {told}")
        if replay.special_vm is not None:
            replay.special_vm.compare_counters(tag)
        replay.result.counters += compared


def hexes(gfns: set[int]) -> str:
    return ", ".join(f"{gfn:x}" for gfn in sorted(gfns)) or "none"
