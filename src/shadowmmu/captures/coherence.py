# SPDX-License-Identifier: GPL-2.0-only
"""That a capture's parts tell of the same run: what one says of another is so.

Where the kernel's events differ from the engine's, the replay says so: that is a divergence. A capture whose own parts contradict each
other is none of a kernel's.
"""

from __future__ import annotations

from collections.abc import Iterator

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.markers import CREATES_VCPU, CREATES_VM, Mark, parse
from shadowmmu.trace.events import Marker

PAGE = 4096
SPACE = 16
"""Shift from a memslot's number to its address space, in which it overlaps no other."""
END_OF_SCRIPT = 0xFFFF
"""A guest's last call of its VMM."""
FOUND = ("stored", "operand", "hlt")
"""What a VMM tells only of a guest that it steps."""
BEFORE = 0
"""What dumps and counters have for the number of a marker before the guest runs."""


def contradictions(capture: Capture, ended: bool) -> Iterator[str]:
    """What is wrong, the first first. `ended`: the VMM closes its VM at the end, so that nothing of the run is missing."""
    if capture.setup.tdp_mmu and not capture.setup.npt:
        yield "it has a TDP MMU without nested paging"
    if len({op.i for op in capture.guest.ops}) < len(capture.guest.ops):
        yield "two operations of its guest have one number"
    run = _Run(capture)
    for number, event in enumerate(capture.events):
        if event.vcpu >= max(run.vcpus, 1):
            yield f"event {number} is of vCPU {event.vcpu}, and its VMM creates {run.vcpus}"
        wrong = run.marker(parse(event)) if isinstance(event, Marker) else ""
        if wrong:
            yield f"event {number}, {event.text!r}, {wrong}"  # type: ignore[union-attr]
    if ended:
        yield from run.whole()


class _Run:
    """The run, as markers tell it so far."""

    def __init__(self, capture: Capture) -> None:
        self.capture, self.guest = capture, capture.guest
        self.vcpus = capture.vcpus
        self.slots: dict[int, tuple[int, int]] = {}
        """Number -> gpa, size."""
        self.were: dict[int, set[tuple[int, int]]] = {}
        """The same, at any time."""
        self.numbers = {BEFORE}
        """Of the guest's markers."""
        self.set_up = False
        self.ops = {op.i for op in self.guest.ops}
        self.l2_ops = {op.i for op in self.guest.l2_ops}
        self.stepped = any(parse(marker).action in FOUND for marker in capture.markers)
        """Nobody has told its programme: the VMM has found what it stores."""

    def marker(self, mark: Mark) -> str:
        """What is wrong with it, or nothing."""
        if mark.who == "G":
            self.numbers.add(mark["seq"])
            return self._says(mark)
        if mark.who != "H":
            return ""
        if mark.action == "slot":
            return self._slot(mark)
        if mark.action == "set_sregs" and not self.set_up:
            self.set_up = True
            return self._registers(mark) or self._memory()
        return f"and its VMM creates {self.vcpus} vCPUs" if mark.action == "on" and mark.fields.get("vcpu", 0) >= self.vcpus else ""

    def _says(self, mark: Mark) -> str:
        """The guest names a step of its own programme, unless that was never told, or of its VMM's script."""
        calls = len(self.guest.host_script)
        for name, known in (("op", mark.fields.get("op") in self.ops), ("l2op", mark.fields.get("l2op") in self.l2_ops)):
            if mark.action == name and not known and (self.ops or not self.stepped):
                return "is no step of its guest"
        if mark.action == "hostcall" and mark["hostcall"] >= calls and mark["hostcall"] != END_OF_SCRIPT:
            return f"and its VMM's script has {calls} calls"
        return ""

    def _slot(self, mark: Mark) -> str:
        slot, gpa, size = mark["id"], mark["gpa"], mark["size"]
        if gpa % PAGE or size % PAGE:
            return "is no whole number of pages"
        self.slots.pop(slot, None)
        if not size:
            return ""
        for other, (start, length) in self.slots.items():
            if other >> SPACE == slot >> SPACE and start < gpa + size and gpa < start + length:
                return f"overlaps memslot {other}, and KVM refuses that"
        self.slots[slot] = gpa, size
        self.were.setdefault(slot, set()).add((gpa, size))
        return ""

    def _registers(self, mark: Mark) -> str:
        """Those that the first vCPU starts with are its guest's."""
        state = self.guest.entry_state
        other = [name for name in ("cr0", "cr3", "cr4", "efer") if state.get(name) != mark[name]]
        return f"and its guest starts with another {', '.join(name.upper() for name in other)}" if other else ""

    def _memory(self) -> str:
        """When the guest is set up, its memory is there, and holds its image."""
        declared = {slot.id: (slot.gpa, slot.size) for slot in self.guest.memslots}
        if declared != self.slots:
            return f"comes with memslots {sorted(self.slots)}, and its guest declares {sorted(declared)}, or others of these numbers"
        for gpa, data in self.capture.image:
            if not any(start <= gpa and gpa + len(data) <= start + size for start, size in self.slots.values()):
                return f"and its image has {len(data):#x} bytes at {gpa:#x}, where no memslot is"
        return ""

    def whole(self) -> Iterator[str]:
        """Of a run that has ended."""
        made = [event.text for event in self.capture.events if isinstance(event, Marker) and event.text in (CREATES_VM, CREATES_VCPU)]
        if made[:1] != [CREATES_VM] or not self.vcpus or not self.set_up:
            yield "its VMM creates no VM, or no vCPU, or does not set it up"
        for kind, parts in (("dump", self.capture.dumps), ("set of counters", self.capture.counters)):
            for part in parts:
                if part.seq not in self.numbers:
                    yield f"a {kind} was taken at marker {part.seq}, which its guest never wrote"
        for slot, gfn, _, pages in self.capture.frames:
            places = self.were.get(slot, ())
            if not any(gpa <= gfn * PAGE and (gfn + pages) * PAGE <= gpa + size for gpa, size in places):
                yield f"its host frames of memslot {slot} lie outside it, at gfn {gfn:#x}"
