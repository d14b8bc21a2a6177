# SPDX-License-Identifier: GPL-2.0-only
"""docs/kernel-functions.md: every function of the kernel's MMU is found here by its name, or is told why it is not."""

from __future__ import annotations

import re
from pathlib import Path

from engine_source import callees, functions

from shadowmmu.trace.origins import CASES

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "kernel-functions.md").read_text()
LINES = Path(__file__).with_name("kernel_functions.txt").read_text().splitlines()[1:]
KERNEL = {name: file for file, name in (line.split() for line in LINES)}
HERE: dict[str, str] = dict(re.findall(r"^\| (\w+) \| `([\w.]+)` \|$", DOC, flags=re.M))
OURS = functions("engine") | functions("x86")


def docstring(function: str) -> str:
    found = re.search(r'"""(.*?)"""', OURS.get(function, ""), flags=re.S)
    return found[1] if found else ""


def test_every_function_of_the_kernel_stands_there_once() -> None:
    _, _, not_here = DOC.partition("## Not here, because")
    rows = re.findall(r"^\| ([\w, ]+) \| [^|`]*(?:`[^`]*`)?[^|]*\|$", not_here, flags=re.M)
    told = [*re.findall(r"^\| (\w+) \| `[\w.]+` \|$", DOC, flags=re.M), *(name for row in rows for name in row.split(", "))]
    assert sorted(name for name in told if name != "kernel") == sorted(KERNEL)


def test_tables_follow_the_files() -> None:
    for section in re.split(r"^## ", DOC, flags=re.M)[1:-1]:
        file = section.partition("\n")[0]
        names = re.findall(r"^\| (\w+) \| `", section, flags=re.M)
        assert names == [name for name in KERNEL if KERNEL[name] == file and name in names], file


def test_the_function_that_does_it_names_it() -> None:
    missing = {
        f"{kernel}: {ours}"
        for kernel, ours in HERE.items()
        if ours not in OURS or (ours.partition(".")[2] != kernel and not re.search(rf"\b{kernel}\b", docstring(ours)))
    }
    assert not missing


def test_what_a_docstring_begins_with_is_in_the_table() -> None:
    """`name:` or `name, name:` at the front says that this is that function: the table must say so too."""
    for ours in OURS:
        front = re.match(r"((?:FNAME\(\w+\)|\w+)(?:, (?:FNAME\(\w+\)|\w+))*)[:.]", docstring(ours))
        for name in re.findall(r"\w+", front[1].replace("FNAME", "")) if front else []:
            told = HERE.get(name, "")
            twin = told and docstring(told) == docstring(ours)  # the rare half of a function that is inline
            assert name not in KERNEL or told == ours or twin, f"{ours} begins with {name}, which the table gives to {told}"


def test_the_origins_of_events_say_the_same() -> None:
    """A case names the kernel's function beside ours that emits or decides: that is the one of the table, or calls it."""
    calls = callees(OURS)
    for case in CASES:
        origin = case.origin
        for name in re.findall(r"\w+", origin.kernel.replace("FNAME", "")):
            told = HERE.get(name)
            ours = (origin.emitter, origin.decider)
            if told is None or not origin.emitter:
                continue
            near = told in ours or any(told in calls.get(one, ()) or one in calls.get(told, ()) for one in ours)
            assert near, f"{origin.event}, {origin.situation}: {name} is {ours} there, the table has {told}"
