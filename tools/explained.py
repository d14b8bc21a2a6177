# SPDX-License-Identifier: GPL-2.0-only
"""Explains every capture there is, as a whole and by the events that people trace, and every text that tools printed.

No line may be left that is not read, and nothing may be called a contradiction: these traces are true. Exit code 1 otherwise.

Examples: python tools/explained.py
          python tools/explained.py build/capture/6.1/texts/shadow       what `capture.py texts shadow` left
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from shadowmmu.captures.find import find_all
from shadowmmu.cli.main import complain
from shadowmmu.errors import BadInput
from shadowmmu.runs.explained.explain import Explainer
from shadowmmu.runs.explained.explanation import Explanation
from shadowmmu.runs.explained.source import explain_file
from shadowmmu.trace.events import AnyEvent, Exit, Marker, VmEntry
from shadowmmu.trace.ftrace.event_text import PROBES, TEXTS
from shadowmmu.trace.ftrace.guess import said
from shadowmmu.trace.ftrace.lines import NOBODY
from shadowmmu.trace.ftrace.reader import PAGES, Told
from shadowmmu.trace.layouts import version_of

TEXTS_OF_TOOLS = Path(__file__).resolve().parents[1] / "tests" / "conformance" / "texts"
_MMU = {name for name in (*TEXTS, *PAGES) if name.startswith("kvm_mmu_") or "mmio_" in name} | {
    "fast_page_fault",
    "kvm_tdp_mmu_spte_changed",
}
TRACED: dict[str, Callable[[AnyEvent], bool]] = {
    "all": lambda _: True,
    "kvm and kvmmmu": lambda event: event.name not in PROBES and not isinstance(event, Marker),
    "kvmmmu": lambda event: event.name in _MMU,
    "without entries and exits": lambda event: event.name not in PROBES and not isinstance(event, Marker | Exit | VmEntry),
}
"""What is in a trace, by what was enabled."""


def of_captures() -> Iterator[tuple[str, Explanation]]:
    for found in find_all((), None):
        capture = found.load()
        for traced, is_traced in TRACED.items():
            explainer = Explainer(said(version_of(capture.setup.series)), capture.setup.npt)
            for number, event in enumerate(filter(is_traced, capture.events), 1):
                explainer.told(Told(number, event.name, event, NOBODY, "role="))
            yield f"{found.name}, {traced}", explainer.explanation()


def of_texts(folders: list[Path]) -> Iterator[tuple[str, Explanation]]:
    """Raises BadInput for a folder that has none."""
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        if not paths:
            raise BadInput(f"{folder} has no file; name a folder of what `capture.py texts` left")
        yield from ((str(path), explain_file(path)) for path in paths)


def main(folders: list[Path]) -> int:
    count = events = wrong = 0
    explained = of_texts(folders) if folders else (one for some in (of_captures(), of_texts([TEXTS_OF_TOOLS])) for one in some)
    for name, told in explained:
        count, events = count + 1, events + told.events
        if told.anomaly_count or told.unread or told.gaps:
            wrong += 1
            first = told.anomalies[0].what if told.anomalies else told.first_unread or "lines that are no event's"
            print(f"{name}: {told.anomaly_count} contradictions, {told.unread} events of no known form, {told.gaps} gaps: {first}")
    print(f"{count:,} traces, {events:,} events: {wrong} with a contradiction, an event of no known form or a gap")
    return int(wrong > 0)


if __name__ == "__main__":
    try:
        sys.exit(main([Path(word) for word in sys.argv[1:]]))
    except BadInput as error:
        sys.exit(complain(str(error)))
