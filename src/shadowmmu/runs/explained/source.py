# SPDX-License-Identifier: GPL-2.0-only
"""What there is to explain: a file of text, packed or not, one of our traces or captures, trace-cmd's trace.dat, standard input."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shadowmmu.border.files import read_file
from shadowmmu.border.limits import CAPTURE, KINDS
from shadowmmu.border.stream import STDIN, XZ, Chunks, lines_of
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.find import find_all
from shadowmmu.captures.load import SUFFIX, load
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.errors import BadInput
from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.commonest import keep_commonest
from shadowmmu.runs.explained.explain import RARE, Explainer
from shadowmmu.runs.explained.explanation import Explanation, Walked, WalkedEntry
from shadowmmu.trace.binary import read_binary
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.ftrace.guess import Kernel, guess, plugin_is_right, said
from shadowmmu.trace.ftrace.hierarchy import Hierarchies
from shadowmmu.trace.ftrace.lines import NOBODY
from shadowmmu.trace.ftrace.page_text import PLUGIN
from shadowmmu.trace.ftrace.reader import LineReader, Told
from shadowmmu.trace.layouts import Layout, layout_of, version_of
from shadowmmu.trace.text import HEADER, from_text

TRACE_DAT = b"\x17\x08\x44tracing"
HEAD = 1 << 18
"""Bytes of a text that the kernel's version is guessed by."""
LONGEST_NAME = 64
"""Of an event; the kernel's have half of it."""
Progress = Callable[[int, int, int], None]
"""Gets the lines read, and how much of the file, in bytes of how many (0: nobody knows)."""
PAGE_FORMS = {
    1: "pages as 2.6.3x words them", 2: "pages as 3.0 to 3.10", 3: "pages as 3.11 to 4.12", 4: "pages as 4.13 to 5.0",
    6: "pages as 5.1 to 7.1", 7: "pages as 7.2 and later", PLUGIN: "pages as trace-cmd's plugin words them",
}  # fmt: skip
HIDDEN = "cr0_wp, smep_andnot_wp, smap_andnot_wp, guest_mode, smm, passthrough"


def explain_file(path: Path, kernel: Kernel | None = None, progress: Progress = lambda *_: None) -> Explanation:
    """Explain what is at `path`; "-" is standard input, and the name of a capture is one of those shipped. Raises BadInput.

    On Ctrl-C while standard input is read, what came so far is explained.
    """
    if path != STDIN and not os.path.exists(path):
        return _of_named_capture(path)
    if path.suffix == SUFFIX:
        return _of_capture(load(path), f"capture {path}")
    chunks = Chunks(path)
    if chunks.head.startswith(TRACE_DAT):
        return _of_trace_dat(path, kernel)
    if chunks.head.startswith(HEADER.encode()):
        return _of_our_text(chunks, kernel, progress)
    if chunks.packed == XZ and b"grammar" in chunks.head[:64]:
        data = read_file(path, CAPTURE, f"trace {path}", "write it anew with this version")
        return _of_events(read_binary(data), f"trace {path}", _engine(kernel))
    return _of_lines(chunks, chunks.name, kernel, progress)


def count_file(path: Path, progress: Progress = lambda *_: None) -> Explanation:
    """Lines by the event that stands in them, and nothing else: as fast as lines can be read."""
    chunks, names, lines, events, notes = Chunks(path), Counter[str](), 0, 0, set[str]()
    for some in lines_of(chunks):
        seen = Counter(name for line in some if line[:1] != "#" for name in line.split(": ", 2)[1:2])
        for text, count in seen.items():
            name = text.strip().rstrip(":").rpartition(":")[2]
            if len(name) <= LONGEST_NAME and name.isidentifier():
                names[name] += count
                events += count
        if keep_commonest(names, KINDS):
            notes.add(RARE)
        lines += len(some)
        progress(lines, chunks.read, chunks.size)
    return Explanation(source=chunks.name, lines=lines, events=events, names=dict(names.most_common()), notes=[*notes])


def _of_lines(chunks: Chunks, name: str, kernel: Kernel | None, progress: Progress) -> Explanation:
    head = chunks.head[:HEAD].decode("utf-8", "replace")
    known = kernel or guess(head)
    reader = LineReader(known, not plugin_is_right(head, known))
    explainer = Explainer(known)
    layout: Layout = layout_of(known.version)

    try:
        for some in lines_of(chunks):
            progress(reader.lines, chunks.read, chunks.size)
            explainer.read(list(reader.read_some(some)))  # by turns: reading and following each have the CPU's cache to themselves
        explainer.read(reader.end())
    except KeyboardInterrupt:
        if not name.startswith("standard"):
            raise
    told = explainer.explanation()
    told.source, told.kernel, told.lines = name, known.words, reader.lines
    words = f"role words as {layout.kernels} has them" if told.roles else "no shadow page in it"
    told.form = ", ".join(PAGE_FORMS[form] for form in sorted(reader.forms)) or words
    told.hidden = _hidden(reader)
    told.hierarchies = _walked(reader.hierarchies)
    if not told.events and not told.hierarchies:
        raise BadInput(
            f"{name} has no event of kvm or kvmmmu: give the text of /sys/kernel/tracing/trace, of trace-cmd report (-R) or perf script"
        )
    return told


def _hidden(reader: LineReader) -> list[str]:
    """What the texts of pages do not show of a role."""
    if not reader.forms and not reader.unnamed:
        return []
    if reader.unnamed:
        return ["ad_disabled, guest_mode, passthrough, and which pages were zapped, synced or unsync: trace-cmd report -R has all of it"]
    if PLUGIN in reader.forms:
        return ["ad_disabled, guest_mode, passthrough: trace-cmd report -R has the whole word"]
    return [f"{HIDDEN}: trace-cmd report -R has the whole word"]


def _walked(hierarchies: Hierarchies) -> list[Walked]:
    return [
        Walked(
            one.line, None if one.address < 0 else Hex(one.address),
            [WalkedEntry(s.level, Hex(s.spte), None if s.reserved < 0 else Hex(s.spte & s.reserved)) for s in one.steps],
        )
        for one in hierarchies.seen
    ]  # fmt: skip


def _engine(kernel: Kernel | None) -> Kernel:
    """Whose MMU the engine's own trace is of, which does not tell it."""
    return said(version_of(DEFAULT_KERNEL)) if kernel is None else kernel


def _of_events(events: Iterable[AnyEvent], name: str, kernel: Kernel, nested_paging: bool = True) -> Explanation:
    """Of events that are read already: their roles are whole words."""
    explainer = Explainer(kernel, nested_paging)
    for number, event in enumerate(events, 1):
        explainer.told(Told(number, event.name, event, NOBODY, "role="))
    told = explainer.explanation()
    told.source, told.lines, told.form = name, told.events, "our own grammar"
    told.kernel = f"functions named as {kernel.version[0]}.{kernel.version[1]} does"
    return told


def _of_our_text(chunks: Chunks, kernel: Kernel | None, progress: Progress) -> Explanation:
    def events() -> Iterator[AnyEvent]:
        lines = 0
        for some in lines_of(chunks):
            lines += len(some)
            progress(lines, chunks.read, chunks.size)
            yield from filter(None, map(from_text, some))

    return _of_events(events(), chunks.name, _engine(kernel))


def _of_capture(capture: Capture, name: str) -> Explanation:
    return _of_events(capture.events, name, said(version_of(capture.setup.series)), capture.setup.npt)


def _of_named_capture(path: Path) -> Explanation:
    """One of the captures that have a name."""
    try:
        found = find_all((str(path),), None)
    except BadInput:
        raise BadInput(
            f"{path}: there is neither such a file nor such a capture; name a trace, a capture, or - for standard input"
        ) from None
    return _of_capture(found[0].load(), f"capture {found[0].name}")


def _of_trace_dat(path: Path, kernel: Kernel | None) -> Explanation:
    """Through trace-cmd, which reads its own form; raw, so that its plugin words no role."""
    program = shutil.which("trace-cmd")
    if program is None:
        raise BadInput(
            f"{path} is trace-cmd's trace.dat, and trace-cmd is not installed: apt install trace-cmd, or give its text, trace-cmd report -R"
        )
    with subprocess.Popen([program, "report", "-R", "-i", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            chunks = _PipeChunks(process.stdout.fileno(), f"trace {path}")
            return _of_lines(chunks, chunks.name, kernel, lambda *_: None)
        finally:
            process.kill()


class _PipeChunks(Chunks):
    """What a program writes."""

    def __init__(self, number: int, name: str) -> None:
        self.name, self.read, self.size, self.packed = name, 0, 0, b""
        self._number = os.dup(number)
        self._pieces = self._plain(self._piece())
        self.head = b"".join(itertools.islice(self._pieces, 4))
