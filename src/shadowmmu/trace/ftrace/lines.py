# SPDX-License-Identifier: GPL-2.0-only
"""What stands around an event's text: task, CPU and time as tracefs, trace-cmd and perf print them; quotes and folds of mails."""

from __future__ import annotations

import html
import re

import msgspec

HEAD = re.compile(
    r"\s*(?:(\S.*?)(?:-|(?<!\s)\s+)(\d{1,10})(?:/\d+)?\s+)?(?:\(\s*[-\d]+\)\s+)?\[(\d{2,4})\]\s+(?:\S{4,6}\s+)?(\d{1,20}(?:\.\d{1,9})?):\s+(?:\d+\s+)?(?:\w{1,64}:)?(\w{1,64}):\s*(.*)"
)
"""Task, its number, CPU, time, event, text. Some clocks (x86-tsc, counter) have no point."""
PLAIN = re.compile(r" *([^ \[][^\[]*)-(\d{1,10}) +\[(\d{2,4})\] +(?:\S{4,6} +)?(\d{1,20}\.\d{1,9}): +(?:\w{1,64}:)?(\w{1,64}): *(.*)")
"""What most of them look like: no part of it is tried twice."""
DUMP = re.compile(
    r"\s*(?:\[\s*\d+\.\d+\]\s*)?(\S.{0,15}?)-(\d{1,10})\s+(\d{1,4})[^\s\d]\S{3,4}\s+(\d{1,20})us[^\w:]?\s*:\s+(\w{1,64}):\s*(.*)"
)
"""The same as the latency format has it, and the dump of the buffer that an oops leaves in the kernel's log."""
LOOSE = re.compile(
    r"(.*?)(?:^|(?<=[\s:|]))(?:kvm(?:mmu)?:)?(kvm_\w{1,60}|mark_mmio_spte|\w{0,48}_mmio_page_fault|check_mmio_spte|fast_page_fault):\s*(.*)"
)
"""What is left of an event's line when somebody cut off its front: what stands there, event, text."""
COUNTED = re.compile(
    r"\s*(\d{1,3}(?:,\d{3}){1,4}|\d{1,12})\s+(?:kvm(?:mmu)?:)?(kvm_\w{1,60}|mark_mmio_spte|\w{0,48}_mmio_page_fault|fast_page_fault):?\s*"
)
"""An event's name and how often it was counted, as awk or perf stat print it."""
BARE = (
    ("kvm_exit", re.compile(r"(?:vcpu \d+ )?reason \S.{0,60}? rip ")),
    ("kvm_page_fault", re.compile(r"(?:vcpu \d+ .{0,40}?)?address \w+ error_code ")),
    ("kvm_mmu_pagetable_walk", re.compile(r"addr \w+ pferr ")),
    ("kvm_mmu_paging_element", re.compile(r"pte \w+ level ")),
    ("kvm_mmu_set_spte", re.compile(r"gfn \w+ spte \w+ \(")),
    ("kvm_mmu_spte_requested", re.compile(r"gfn \w+ pfn \w+ level ")),
)
"""What is left of an event when its name was cut off before lines were counted."""
BARE_PAGE = re.compile(r"\s*((?:(?:new|existing) )?sp (?:gen [0-9a-f]+ )?gfn [0-9a-f]+ .*)")
"""A page's text without its event."""
FRONT = re.compile(r".*\[\d{2,4}\]\s*(?:\S{4,6}\s*)?(?:\d+\.\d+:)?\s*$")
"""The front of a line that a mail has folded before the event."""
STACK = re.compile(r"\s*(?:=>\s|(?:.*:\s+)?<(?:user )?stack trace ?>|[0-9a-f]{8,16} \S+ \(\S+\)$)|\s+[0-9a-f]{1,16} \S.* \(.+\)$")
"""A call chain of tracefs, of trace-cmd, of perf script, whose addresses of programs are short."""
HEADER = re.compile(r"#|cpus=\d+$")
"""What tools put above a trace."""
LOST = re.compile(r"(?:LOST (\d{1,18}) EVENTS?|(\d{1,18}) EVENTS? DROPPED)", re.IGNORECASE)
COUNT = re.compile(r"\s*(\d{1,12})\s+")
_QUOTE = re.compile(r"\s*(?:>[> ]*|\|\s)")


class Front(msgspec.Struct, frozen=True, gc=False):
    """Who was traced, on which CPU and when, as far as the line says. `count`: how often uniq found the line."""

    task: str = ""
    pid: int = 0
    cpu: int = 0
    time: float = -1.0
    count: int = 1


NOBODY = Front()


class Unfold:
    """Takes from lines what mail programs put there: quotes, soft line ends, characters written as =20 or &gt;."""

    def __init__(self) -> None:
        self.quoted_printable = False
        self._begun = ""

    def line(self, line: str) -> str | None:
        """The line as it was sent; None: it goes on in the next one."""
        line = line.rstrip("\r\n\0 \t")
        if (">" in line or "|" in line) and (found := _QUOTE.match(line)):
            line = line[found.end() :]
        if "=" in line and ("=3D" in line or line.endswith(("=20", "="))):
            self.quoted_printable = True
            if line.endswith("=") and not line.endswith("=="):
                self._begun += line[:-1]
                return None if len(self._begun) < MAX_FOLDED else self._whole("")
            line = line.replace("=20", " ").replace("=3D", "=").replace("=09", "\t")
        if "&" in line:
            line = html.unescape(line)
        return self._whole(line) if self._begun else line

    def _whole(self, line: str) -> str:
        whole, self._begun = self._begun + line, ""
        return whole.replace("=20", " ").replace("=3D", "=")


MAX_FOLDED = 1 << 12
"""A line that goes on for longer is none of a trace's."""


def split(line: str) -> tuple[Front, str, str] | None:
    """Front, event and text of a line; None: it is no event's. The text of a name that stands alone, counted, is that name."""
    found = PLAIN.match(line) or HEAD.match(line)
    if found is not None:
        task, pid, cpu, time, name, text = found.groups()
        return Front(task or "", int(pid or 0), int(cpu), float(time)), name, text
    if "us" in line and (found := DUMP.match(line)) is not None:
        task, pid, cpu, time, name, text = found.groups()
        return Front(task, int(pid), int(cpu), int(time) / 1e6), name, text
    counted = COUNTED.fullmatch(line)
    if counted is not None:
        return Front(count=int(counted[1].replace(",", ""))), counted[2], counted[2]
    found = LOOSE.match(line)
    if found is not None:
        front, name, text = found.groups()
        counted = COUNT.fullmatch(front + " ") if front else None
        return (Front(count=int(counted[1])) if counted else NOBODY), name, text
    counted = COUNT.match(line)
    page = BARE_PAGE.match(line, counted.end() if counted else 0)
    if page is None:
        return None if counted is None else _bare(line[counted.end() :], int(counted[1]))
    return (Front(count=int(counted[1])) if counted else NOBODY), "kvm_mmu_get_page", page[1]


def _bare(text: str, count: int) -> tuple[Front, str, str] | None:
    name = next((name for name, begins in BARE if begins.match(text)), None)
    return None if name is None else (Front(count=count), name, text)
