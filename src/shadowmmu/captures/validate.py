# SPDX-License-Identifier: GPL-2.0-only
"""What a capture must be for a replay to begin: sizes that can be, numbers that fit, markers with what they need.

The types are the decoder's to check. What is then still wrong shows at an event, and `undoable` names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from shadowmmu import EngineError
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.coherence import PAGE, contradictions
from shadowmmu.captures.markers import CLOSED_VM, Mark, parse
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent, Marker
from shadowmmu.trace.text import to_text

MOST_MEMORY = 1 << 32
"""Bytes of all memslots together; captured guests have a hundredth."""
MOST_ADDRESS_BITS = 51
"""Of a guest: there are CPUs with one more, which the engine does not have."""
ENDS = ("H closing", "H WATCHDOG")
"""Words of the VMM: it closes the VM, or has waited too long for the guest."""
UNMAPPED, AGED = "kvm_unmap_hva_range", "kvm_age_hva"
"""The MMU notifier's events: the translations of a part of the VMM's memory are gone; the host looks whether it is in use, as DAMON and
the reclaim of memory do."""
LONGEST_STORE = 16
"""Bytes."""
NEEDED = {
    "noquirks": ("bits",),
    "slot": ("id", "gpa", "size", "flags"),
    "madvise_dontneed": ("gpa", "size"),
    "mprotect": ("gpa", "size", "w"),
    "poke": ("gpa", "val", "len"),
    "set_sregs": ("cr0", "cr3", "cr4", "efer"),
    "get_dirty_log": ("slot",),
    "dirty": ("gfn",),
    "stored": ("va", "len", "cpl", "val"),
    "operand": ("rip", "val"),
}
"""What the VMM's lines tell."""


TEARDOWN = (e.PrepareZapPage, e.SyncPage, e.MmuUnload, e.FreeRoots, e.TdpMmuSpteChanged, e.GuestTlbFlush, e.Other)
"""What a kernel does when a VM is closed; no replay looks at it."""


def validate_capture(capture: Capture, name: str) -> None:
    """Raises BadInput that names the capture (as `name`), what is wrong with it, and what to do."""
    for wrong in _wrongs(capture):
        raise BadInput(f"capture {name}: {wrong}; it was changed or cut off, so copy or pack it anew")
    if capture.setup.maxphyaddr > MOST_ADDRESS_BITS:
        raise BadInput(
            f"capture {name}: its guest's CPU has {capture.setup.maxphyaddr} bits of physical address, the engine's at most "
            f"{MOST_ADDRESS_BITS}; capture it with fewer (a guest's physbits {MOST_ADDRESS_BITS}, a host's phys-bits={MOST_ADDRESS_BITS})"
        )


@contextmanager
def undoable(name: str) -> Iterator[None]:
    """The engine refuses numbers, or memory, that no kernel can have told: the capture is broken, and its name is `name`."""
    try:
        yield
    except (ValueError, LookupError, OverflowError, MemoryError, EngineError) as error:
        raise BadInput(f"capture {name} cannot be replayed: {error}; it was changed or cut off, so copy or pack it anew") from error


def _wrongs(capture: Capture) -> Iterator[str]:
    yield from _setup(capture)
    yield from _guest(capture)
    memory, regions = 0, set()
    for number, event in enumerate(capture.events):
        if isinstance(event, e.Other) and event.ev in (UNMAPPED, AGED) and not _is_range(event):
            yield f"event {number}, {to_text(event)}, names no pages of its VMM's"
        if not isinstance(event, Marker):
            continue
        mark = parse(event)
        wrong = _marker(mark)
        if wrong:
            yield f"event {number}, {event.text!r}, {wrong}"
            return
        if mark.who == "H" and mark.action == "slot" and (mark["id"], mark["size"]) not in regions:
            regions.add((mark["id"], mark["size"]))
            memory += mark["size"]
    if memory > MOST_MEMORY:
        yield f"its memslots have {memory:#x} bytes, more than {MOST_MEMORY:#x}"
    yield from _end(capture.events)
    if sum(run[3] for run in capture.frames) > MOST_MEMORY >> 12 or any(field < 0 for run in capture.frames for field in run):
        yield f"its host frames are negative, or hold more than {MOST_MEMORY:#x} bytes"
    yield from contradictions(capture, any(map(is_end, capture.events)))


def _is_range(event: e.Other) -> bool:
    start, end = event.fields.get("start"), event.fields.get("end")
    return isinstance(start, int) and isinstance(end, int) and 0 <= start < end < 1 << 64 and not (start | end) % PAGE


def _end(events: Sequence[AnyEvent]) -> Iterator[str]:
    """The VMM closes its VM, or gives up a guest that does not end before that; then only what was there goes away."""
    end = next((number for number, event in enumerate(events) if is_end(event)), len(events))
    for number, event in enumerate(events[end:], end):
        if not (isinstance(event, TEARDOWN) or is_end(event) or (isinstance(event, Marker) and event.text == CLOSED_VM)):
            yield f"event {number}, {to_text(event)}, follows its end"
        if isinstance(event, Marker) and event.text == CLOSED_VM and number != len(events) - 1:
            yield f"event {number + 1}, {to_text(events[number + 1])}, follows its end"


def is_end(event: AnyEvent) -> bool:
    """Whether the guest is over, for whoever looks at the events in order."""
    return isinstance(event, Marker) and event.text in ENDS


def _setup(capture: Capture) -> Iterator[str]:
    setup = capture.setup
    if setup.host_levels not in (4, 5) or not 32 <= setup.maxphyaddr <= 52 or not 36 <= setup.host_maxphyaddr <= 52:
        yield f"no CPU has {setup.host_levels} levels of paging with {setup.maxphyaddr} and {setup.host_maxphyaddr} address bits"
    for register, reserved in (("CR4", setup.cr4_reserved), ("EFER", setup.efer_reserved)):
        if not 0 <= reserved < 1 << 64:
            yield f"{register} has no bits {reserved:#x}"
    if setup.vendor not in ("svm", "vmx") or setup.guest_vendor not in ("host", "svm", "vmx"):
        yield f"no CPU is of {setup.vendor} with a guest's of {setup.guest_vendor}"
    if setup.roots and setup.roots not in ROOT_DESIGNS:
        yield f"its kernel has roots {setup.roots!r}, known are {', '.join(ROOT_DESIGNS)}"


def _guest(capture: Capture) -> Iterator[str]:
    guest = capture.guest
    for op in (*guest.ops, *guest.l2_ops):
        if not 0 < op.size <= LONGEST_STORE or op.va < 0:
            yield f"operation {op.i} of its guest has {op.size} bytes at {op.va:#x}"
    for command in (command for script in guest.host_script for command in script):
        word, *arguments = command.split() or [""]
        if not word or (word in ("stats", "slot") and not arguments) or (word == "slot" and not arguments[0].isdecimal()):
            yield f"its VMM's script has {command!r}"
    for dump in capture.dumps:
        if not 2 <= dump.level <= 5 or any(not 1 <= entry.level <= 5 or not 0 <= entry.index < 512 for entry in dump.entries):
            yield f"dump {dump.tag} has tables of no level"


def _marker(mark: Mark) -> str:
    """What is wrong with a marker, or nothing."""
    if mark.who == "G":
        missing = [] if "seq" in mark else ["seq"]
        missing += [mark.action] if mark.action in ("op", "l2op", "val", "hostcall") and mark.action not in mark else []
    else:
        missing = [name for name in NEEDED.get(mark.action, ()) if name not in mark]
    if missing:
        return f"does not tell {' and '.join(missing)}"
    if any(value < 0 for value in mark.fields.values()) or mark.number < 0:
        return "has a negative number"
    if mark.action in ("slot", "madvise_dontneed", "mprotect") and mark["size"] > MOST_MEMORY:
        return f"is about {mark['size']:#x} bytes, more than {MOST_MEMORY:#x}"
    return "stores too much" if mark.action == "poke" and not 0 < mark["len"] <= LONGEST_STORE else ""
