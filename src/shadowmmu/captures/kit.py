"""Reads what the capture kit writes: `captures/<set>/NAME.*` beside `guests/<set>/NAME.*`."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shadowmmu.captures.capture import Capture, Counters, Dump, Guest, Op, Setup, Slot, TableEntry
from shadowmmu.captures.load import checked
from shadowmmu.errors import BadInput
from shadowmmu.trace.events import GRAMMAR_VERSION
from shadowmmu.trace.kernel import from_kernel

EVENTS = ".jsonl.gz"
_FEATURES = (
    (0x1, "ecx", 17, 17), (0x1, "ecx", 26, 18), (0x1, "ecx", 5, 13), (0x7, "ebx", 0, 16), (0x7, "ebx", 7, 20),
    (0x7, "ebx", 20, 21), (0x7, "ecx", 2, 11), (0x7, "ecx", 3, 22), (0x7, "ecx", 16, 12),
)  # fmt: skip
"""CPUID leaf, register, bit -> the CR4 bit that it offers (APM vol. 3 appendix D)."""
_ALWAYS_RESERVED = 0xFFFF_FFFF_FF00_0000 | 1 << 15 | 1 << 19


def names(set_dir: Path) -> list[str]:
    """The guests captured in a set."""
    return sorted(path.name.removesuffix(EVENTS) for path in set_dir.glob("*" + EVENTS))


def read_capture(set_dir: Path, name: str) -> Capture:
    """One capture with its guest; `set_dir` is `.../captures/<set>`."""
    guest_file = _guest_dir(set_dir, name) / f"{name}.json"
    with _reading(guest_file):
        described = json.loads(guest_file.read_text())
        guest = _guest(described)
        image = [(part["gpa"], (guest_file.parent / part["file"]).read_bytes()) for part in described["image"]]
    with _reading(set_dir):
        setup = _setup(set_dir)
    with _reading(set_dir / f"{name}.spt.txt") as path:
        dumps = list(_dumps(path))
    with _reading(set_dir / f"{name}.stats.txt") as path:
        counters = list(_counters(path))
    with _reading(set_dir / f"{name}.pfn.txt.gz") as path:
        frames = _frames(path)
    with _reading(set_dir / (name + EVENTS)) as path:
        events = [from_kernel(json.loads(line)) for line in gzip.decompress(path.read_bytes()).splitlines()]
    with _reading(set_dir / name):
        return checked(Capture(GRAMMAR_VERSION, set_dir.name, setup, guest, image, events, dumps, counters, frames))


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """Whatever is wrong with a file of the kit's is said of it, in one line."""
    try:
        yield path
    except OSError as error:
        raise BadInput(f"{error.filename or path}: {error.strerror or error}; copy the kit's output anew") from error
    except (EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is not as the kit writes it ({error})"
        raise BadInput(f"{path} {what}; copy the kit's output anew") from error


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


def _text(set_dir: Path, name: str) -> str:
    path = set_dir / f"_{name}.txt"
    if not path.is_file():
        raise BadInput(f"{path} is missing: it tells how the host was set up; copy it from the capture's output")
    return path.read_text()


def _setup(set_dir: Path) -> Setup:
    parameters = dict(line.rsplit("/", 1)[-1].split("=", 1) for line in _text(set_dir, "kvm_params").splitlines() if "=" in line)
    cpu = _text(set_dir, "cpuinfo")
    with _reading(set_dir / "_guest_cpuid.txt"):
        leaves = _cpuid(_text(set_dir, "guest_cpuid"))
    physical = re.search(r"address sizes\s*:\s*(\d+) bits physical", cpu)
    reserved = _ALWAYS_RESERVED
    for leaf, register, bit, cr4_bit in _FEATURES:
        if not leaves.get(leaf, {}).get(register, 0) >> bit & 1:
            reserved |= 1 << cr4_bit
    npt = parameters.get("npt", parameters.get("ept", "N")) in "Y1"
    return Setup(
        npt=npt,
        tdp_mmu=npt and parameters.get("tdp_mmu", "N") in "Y1",
        host_levels=5 if re.search(r"\bla57\b", cpu) else 4,
        maxphyaddr=leaves.get(0x80000008, {}).get("eax", 40) & 0xFF,
        host_maxphyaddr=int(physical[1]) if physical else 46,
        cr4_reserved=reserved,
        nx_huge_pages=parameters.get("nx_huge_pages", "N") in "Y1",
        kernel=_text(set_dir, "uname").strip(),
    )


def _cpuid(text: str) -> dict[int, dict[str, int]]:
    """Leaf -> registers, of sub-leaf 0."""
    leaves: dict[int, dict[str, int]] = {}
    for line in text.splitlines():
        words = line.split()
        leaf, _, sub = words[0].partition(".")
        if sub == "0":
            leaves[int(leaf, 16)] = dict(zip(("eax", "ebx", "ecx", "edx"), (int(w, 16) for w in words[1:5]), strict=True))
    return leaves


_ENTRY = re.compile(r" *L(\d) ([0-9a-f]+)\[([0-9a-f]+)\] = ([0-9a-f]+)")
_DUMP = re.compile(r"DUMP seq=(\d+) tag=\s*(\S*) root=([0-9a-f]+) level=(\d+)")


def _dumps(path: Path) -> Iterator[Dump]:
    head: re.Match[str] | None = None
    entries: list[TableEntry] = []
    for line in [*path.read_text().splitlines(), "DUMP"]:
        if line.startswith("DUMP"):
            if head:
                yield Dump(int(head[1]), head[2], int(head[3], 16), int(head[4]), entries)
            head, entries = _DUMP.match(line), []
        elif match := _ENTRY.match(line):
            entries.append(TableEntry(int(match[1]), int(match[2], 16), int(match[3], 16), int(match[4], 16)))


def _counters(path: Path) -> Iterator[Counters]:
    blocks = re.split(r"^STATS ", path.read_text(), flags=re.MULTILINE)[1:]
    for block in blocks:
        head, *lines = block.splitlines()
        where = re.match(r"seq=(\d+) tag=\s*(\S*)", head)
        values = (line.strip().removeprefix("vcpu0/").split("=") for line in lines if "=" in line)
        if where:
            yield Counters(int(where[1]), where[2], {k: int(v) for k, v in values if re.fullmatch(r"-?\d+", v)})


def _frames(path: Path) -> list[tuple[int, int, int, int]]:
    runs: list[tuple[int, int, int, int]] = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        gfn, pfn, slot = int(line.split()[0], 16), int(line.split()[1], 16), int(line.split()[2])
        if not pfn:
            continue
        if runs and runs[-1][0] == slot and runs[-1][1] + runs[-1][3] == gfn and runs[-1][2] + runs[-1][3] == pfn:
            runs[-1] = (*runs[-1][:3], runs[-1][3] + 1)
        else:
            runs.append((slot, gfn, pfn, 1))
    return runs
