# SPDX-License-Identifier: GPL-2.0-only
"""Reads what the capture kit writes: `captures/<set>/NAME.*` beside `guests/<set>/NAME.*`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowmmu.border import limits
from shadowmmu.border.files import gunzip, inside, parsing, read_file
from shadowmmu.captures import cpuid
from shadowmmu.captures.capture import Capture, Counters, Dump, Guest, Op, Setup, Slot, TableEntry
from shadowmmu.captures.load import checked
from shadowmmu.captures.markers import TURNS_QUIRKS_OFF, parse
from shadowmmu.errors import BadInput
from shadowmmu.trace.events import GRAMMAR_VERSION, AnyEvent, Marker
from shadowmmu.trace.forms import FORMS
from shadowmmu.trace.kernel import from_kernel

EVENTS = ".jsonl.gz"
ABSENT = 1 << 63
"""An entry with nothing in it, since Linux 6.9: as good as 0, which dumps leave out."""
REMEDY = "copy the kit's output anew"


def read_capture(set_dir: Path, name: str) -> Capture:
    """One capture with its guest; `set_dir` is `.../captures/<set>`."""
    guest_file = _guest_dir(set_dir, name) / f"{name}.json"
    with _reading(guest_file) as data:
        described = json.loads(data)
        guest = _guest(described)
        if len(described["image"]) > limits.PARTS:
            raise ValueError(f"its image has {len(described['image'])} parts, no more than {limits.PARTS} are read")
        files = [(part["gpa"], inside(guest_file.parent, part["file"])) for part in described["image"]]
    image = list(_image(files))
    setup = _setup(set_dir, name)
    with _reading(set_dir / f"{name}.spt.txt") as data:
        dumps = list(_dumps(data.decode()))
    with _reading(set_dir / f"{name}.stats.txt") as data:
        counters = list(_counters(data.decode()))
    with _reading(set_dir / f"{name}.pfn.txt.gz") as data:
        frames = _frames(_lines(gunzip(data), limits.FRAMES))
    form = FORMS[setup.series]
    with _reading(set_dir / (name + EVENTS)) as data:
        events = [from_kernel(json.loads(line), form) for line in _lines(gunzip(data), limits.EVENTS)]
    setup = msgspec.structs.replace(setup, quirks_off=_quirks_off(events))
    with parsing(f"{set_dir / name} is not as the kit writes it", REMEDY):
        return checked(Capture(GRAMMAR_VERSION, set_dir.name, setup, guest, image, events, dumps, counters, frames))


@contextmanager
def _reading(path: Path) -> Iterator[bytes]:
    """A file of the kit's, not one that a link leads to elsewhere; whatever is wrong with it is said of it, in one line."""
    with parsing(f"{path} is not as the kit writes it", REMEDY):
        yield read_file(inside(path.parent, path.name), limits.KIT_FILE, str(path), REMEDY)


def _image(files: Sequence[tuple[int, Path]]) -> Iterator[tuple[int, bytes]]:
    room = limits.UNPACKED
    for gpa, path in files:
        data = read_file(path, room, str(path), REMEDY)
        room -= len(data)
        yield gpa, data


def _lines(data: bytes, most: int) -> list[bytes]:
    """Raises ValueError for more lines, or longer ones, than are read."""
    if data.count(b"\n") > most:
        raise ValueError(f"it has more than {most:,} lines")
    lines = data.splitlines()
    if any(len(line) > limits.LINE for line in lines):
        raise ValueError(f"it has a line of more than {limits.LINE:,} bytes")
    return lines


def _guest_dir(set_dir: Path, name: str) -> Path:
    """Sets captured on other hosts share guests: `nested_la57` has those of `nested`."""
    guests = set_dir.parent.parent / "guests"
    wanted = set_dir.name
    candidates = [guests / wanted[:end] for end in range(len(wanted), 0, -1)] + sorted(guests.glob("*"))
    for candidate in candidates:
        if (candidate / f"{name}.json").is_file():
            return candidate
    raise BadInput(f"{set_dir / name}: its guest {name}.json is in no folder of {guests}; copy the guests there")


def _guest(described: dict[str, Any]) -> Guest:
    def ops(key: str) -> list[Op]:
        return [msgspec.convert({k: v for k, v in op.items() if v is not None}, Op) for op in described.get(key, [])]

    return Guest(
        name=described["name"],
        desc=described.get("desc", ""),
        entry_state=described["entry_state"],
        memslots=msgspec.convert(described["memslots"], list[Slot]),
        ops=ops("ops"),
        l2_ops=ops("l2_ops"),
        host_script=described.get("host_script", []),
    )


@contextmanager
def _host(set_dir: Path, name: str) -> Iterator[str]:
    """One of the files that tell how the host was set up."""
    path = set_dir / f"_{name}.txt"
    if not path.exists():
        raise BadInput(f"{path} is missing: it tells how the host was set up; copy it from the capture's output")
    with _reading(path) as data:
        yield data.decode()


def _setup(set_dir: Path, name: str) -> Setup:
    with _host(set_dir, "kvm_params") as text:
        parameters = dict(line.rsplit("/", 1)[-1].split("=", 1) for line in text.splitlines() if "=" in line)
    with _host(set_dir, "cpuinfo") as cpu:
        physical = re.search(r"address sizes\s*:\s*(\d+) bits physical", cpu)
        host_maxphyaddr = int(physical[1]) if physical else 46
    own = f"{name}.cpuid.txt"
    with _reading(set_dir / own) if (set_dir / own).exists() else _reading(set_dir / "_guest_cpuid.txt") as data:
        leaves = cpuid.read(data.decode())  # older captures have it once for a whole set
    with _host(set_dir, "uname") as text:
        kernel = text.strip()
    vendor = "vmx" if "GenuineIntel" in cpu else "svm"
    guest_vendor = cpuid.vendor(leaves)
    npt = parameters.get("npt", parameters.get("ept", "N")) in "Y1"
    tdp_mmu = npt and parameters.get("tdp_mmu", "N") in "Y1"
    return Setup(
        npt=npt,
        tdp_mmu=tdp_mmu,
        host_levels=5 if re.search(r"\bla57\b", cpu) else 4,
        maxphyaddr=cpuid.address_bits(leaves),
        host_maxphyaddr=host_maxphyaddr,
        cr4_reserved=cpuid.cr4_reserved(leaves),
        nx_huge_pages=parameters.get("nx_huge_pages", "N") in "Y1",
        kernel=kernel,
        eager_page_split=tdp_mmu and parameters.get("eager_page_split", "N") in "Y1",
        mmio_caching=parameters.get("mmio_caching", "Y") in "Y1",
        pages_1g=cpuid.offers(leaves, cpuid.PAGES_1G),
        efer_reserved=cpuid.efer_reserved(leaves),
        vendor=vendor,
        guest_vendor="host" if guest_vendor == vendor else guest_vendor,
        roots=_roots(set_dir),
    )


def _roots(set_dir: Path) -> str:
    """Older captures do not say which roots their kernel has."""
    if not (set_dir / "_roots.txt").exists():
        return ""
    with _host(set_dir, "roots") as text:
        return text.strip()


def _quirks_off(events: Sequence[AnyEvent]) -> int:
    marks = (parse(event) for event in events if isinstance(event, Marker))
    return next((mark.fields.get("bits", 0) for mark in marks if mark.action == TURNS_QUIRKS_OFF), 0)


_ENTRY = re.compile(r" *L(\d) ([0-9a-f]+)\[([0-9a-f]+)\] = ([0-9a-f]+)")
_NOTHING = re.compile(r" *L\d ([0-9a-f]+) nothing=([0-9a-f]+)")
_DUMP = re.compile(r"DUMP seq=(\d+) tag=\s*(\S*) root=([0-9a-f]+) level=(\d+)")


def _dumps(text: str) -> Iterator[Dump]:
    head: re.Match[str] | None = None
    entries: list[TableEntry] = []
    nothing: dict[int, int] | None = None
    for line in [*text.splitlines(), "DUMP"]:
        if line.startswith("DUMP"):
            if head:
                yield Dump(int(head[1]), head[2], int(head[3], 16), int(head[4]), entries, nothing)
            head, entries, nothing = _DUMP.match(line), [], None
        elif match := _NOTHING.match(line):
            nothing = (nothing or {}) | ({int(match[1], 16): value} if (value := int(match[2], 16)) else {})
        elif (match := _ENTRY.match(line)) and (nothing is not None or int(match[4], 16) != ABSENT):
            entries.append(TableEntry(int(match[1]), int(match[2], 16), int(match[3], 16), int(match[4], 16)))


def _counters(text: str) -> Iterator[Counters]:
    blocks = re.split(r"^STATS ", text, flags=re.MULTILINE)[1:]
    for block in blocks:
        head, *lines = block.splitlines()
        where = re.match(r"seq=(\d+) tag=\s*(\S*)", head)
        values = (line.strip().removeprefix("vcpu0/").split("=") for line in lines if "=" in line)
        if where:
            yield Counters(int(where[1]), where[2], {k: int(v) for k, v in values if re.fullmatch(r"-?\d+", v)})


def _frames(lines: Sequence[bytes]) -> list[tuple[int, int, int, int]]:
    runs: list[tuple[int, int, int, int]] = []
    for line in lines:
        gfn, pfn, slot = int(line.split()[0], 16), int(line.split()[1], 16), int(line.split()[2])
        if not pfn:
            continue
        if runs and runs[-1][0] == slot and runs[-1][1] + runs[-1][3] == gfn and runs[-1][2] + runs[-1][3] == pfn:
            runs[-1] = (*runs[-1][:3], runs[-1][3] + 1)
        else:
            runs.append((slot, gfn, pfn, 1))
    return runs
