# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a kernel's trace as people have them, read as events, one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent, Marker, Other
from shadowmmu.trace.ftrace.event_text import PROBES, TEXTS, read_probe
from shadowmmu.trace.ftrace.guess import RWUX, Kernel
from shadowmmu.trace.ftrace.hierarchy import Hierarchies
from shadowmmu.trace.ftrace.lines import FRONT, HEADER, LOST, STACK, Front, Unfold, split
from shadowmmu.trace.ftrace.page_text import UNNAMED, read_page
from shadowmmu.trace.ftrace.raw_text import read_fields
from shadowmmu.trace.kernel import CLASSES
from shadowmmu.trace.layouts import RENAMED

PAGES: dict[str, Any] = {
    "kvm_mmu_get_page": e.GetPage, "kvm_mmu_sync_page": e.SyncPage, "kvm_mmu_unsync_page": e.UnsyncPage,
    "kvm_mmu_prepare_zap_page": e.PrepareZapPage,
}  # fmt: skip
MARK = re.compile(r"(?:ip=)?0x[0-9a-f]+(?:: | : | buf=)|ip=.*? : ")
"""What stands before a mark: from where in the kernel it was written."""
MARKERS = ("tracing_mark_write", "print", "bprint")
_FAILED = re.compile(r"reason error \((\d{1,4})\)|errno=-(\d{1,4})\b")
"""KVM_RUN has failed: its errno."""
STACKS = ("kernel_stack", "user_stack")
"""Events that trace-cmd makes of a stack trace."""
MOST_JOINED = 4
"""Lines that one event is folded into."""
_OURS = ("kvm", "kvmmmu")


class Told(msgspec.Struct, gc=False):
    """One event of a trace, the line it stands in, and who and when. `event` is None where its text is in no known form."""

    line: int
    name: str
    event: AnyEvent | None
    front: Front
    text: str


class Broken(msgspec.Struct, gc=False):
    """The trace does not go on from the event before. `lost`: events that the tracer says it dropped; 0: somebody cut them out."""

    line: int
    lost: int


class LineReader:
    """Reads lines in order; what they were besides events is counted.

    kernel      which kernel's forms and numbers
    inverted    trace-cmd's plugin has "pae" for entries of 4 bytes
    """

    def __init__(self, kernel: Kernel, inverted: bool) -> None:
        self.kernel, self.inverted = kernel, inverted
        self.lines = self.prose = self.stack = 0
        """`stack`: lines of call chains, and of walks in the kernel's log."""
        self.unnamed = 0
        """Events of a page that do not say of which."""
        self.forms: set[int] = set()
        """The forms of page texts that were met; see page_text."""
        self.hierarchies = Hierarchies()
        self._unfold = Unfold()
        self._front = ""
        self._waiting: Told | None = None
        self._joined = 0

    def read(self, lines: Iterable[str]) -> Iterator[Told | Broken]:
        """All of a trace."""
        yield from self.read_some(lines)
        yield from self.end()

    def read_some(self, lines: Iterable[str]) -> Iterator[Told | Broken]:
        """More lines; the last event may go on in the next."""
        for line in lines:
            self.lines += 1
            told = self._line(line)
            if told:
                yield from told

    def end(self) -> Iterator[Told]:
        """There are no more."""
        yield from self._give_up()

    def _line(self, raw: str) -> Iterable[Told | Broken]:
        line = self._unfold.line(raw)
        if line is None:
            return ()
        parts = split(f"{self._front} {line}" if self._front else line)
        self._front = ""
        if parts is not None:
            told = self._told(*parts)
            if told is not None:
                before, self._waiting, self._joined = self._waiting, told, 0
                if self._is_whole(told):
                    self._waiting = None
                    return (told,) if before is None else (before, told)
                return () if before is None else (before,)
        return self._other_line(line)

    def _told(self, front: Front, name: str, text: str) -> Told | None:
        """What the line tells; None: it is somebody's sentence that names an event."""
        if name in STACKS:
            return None
        event = Other(ev=name) if text == name else self.event(name, text)
        if event is None and front.time < 0 and name not in text and not _begins_like(name, text):
            return None
        return Told(self.lines, RENAMED.get(name, name), event, front, text)

    def _is_whole(self, told: Told) -> bool:
        if told.event is None:
            return False
        if told.name != "kvm_mmu_get_page" or told.front.count > 1:
            return True
        return "new" in told.text or "existing" in told.text or "=" in told.text

    def _other_line(self, line: str) -> Iterator[Told | Broken]:
        """A line without an event: it may be the rest of the one before, or the front of the next."""
        if STACK.match(line) or ("spte" in line and self.hierarchies.line(self.lines, line)):
            self.stack += 1
        elif lost := LOST.search(line):
            yield from self._give_up()
            yield Broken(self.lines, int(lost[1] or lost[2]))
        elif self._waiting is not None and line.strip() and self._joined < MOST_JOINED:
            yield from self._join(line)
        elif HEADER.match(line):
            return
        elif FRONT.match(line):
            self._front = line
        elif line.strip():
            self.prose += 1
            yield from self._give_up()
            yield Broken(self.lines, 0)

    def _join(self, line: str) -> Iterator[Told]:
        waiting = self._waiting
        assert waiting is not None
        self._joined += 1
        waiting.text = f"{waiting.text.rstrip()} {line.strip()}"
        waiting.event = self.event(waiting.name, waiting.text) or waiting.event
        if self._is_whole(waiting):
            self._waiting = None
            yield waiting

    def _give_up(self) -> Iterator[Told]:
        if self._waiting is not None:
            yield self._waiting
            self._waiting = None

    def event(self, name: str, text: str) -> AnyEvent | None:
        """The event of a text; None: the text has none of the known forms."""
        name = RENAMED.get(name, name)
        if name in PAGES:
            return self._page(name, text)
        reads = TEXTS.get(name)
        if reads is not None:
            return ("=" in text and read_fields(name, text, self.kernel.version)) or reads(text)
        if name in PROBES:
            return read_probe(name, text)
        if name in MARKERS:
            return Marker(text=MARK.sub("", text, count=1))
        if name == "kvm_userspace_exit" and (failed := _FAILED.search(text)):
            return Other(ev=name, fields={"errno": int(failed[1] or failed[2])})
        return read_fields(name, text, self.kernel.version) if name in CLASSES and "=" in text else Other(ev=name)

    def _page(self, name: str, text: str) -> AnyEvent | None:
        page = read_page(text, self.inverted, self.kernel.version >= RWUX)
        if page is None and UNNAMED.match(text):
            self.unnamed += 1
            return Other(ev=name)
        if page is None:
            return read_fields(name, text, self.kernel.version)
        self.forms.add(page.form)
        values = {
            "gfn": page.gfn, "role": page.role, "mmu_valid_gen": page.gen, "root_count": page.root_count, "unsync": page.unsync,
        }  # fmt: skip
        if name == "kvm_mmu_get_page":
            values["created"] = bool(page.created)
        return PAGES[name](**values)  # type: ignore[no-any-return]


_FIRST_WORDS = {
    "kvm_mmu_pagetable_walk": ("addr ",), "kvm_mmu_paging_element": ("pte ",), "kvm_mmu_set_spte": ("gfn ",),
    "kvm_mmu_spte_requested": ("gfn ",), "fast_page_fault": ("vcpu ", "gva "),
}  # fmt: skip


def _begins_like(name: str, text: str) -> bool:
    """A text of this event begins so, or may begin on the next line."""
    if name in PAGES:
        return text.startswith(("sp ", "new sp", "existing sp")) or not text
    return not text or text.startswith(_FIRST_WORDS.get(name, ("\0",)))
