# SPDX-License-Identifier: GPL-2.0-only
"""The parts of the engine's functions: a build that tells of each part it runs through, and of which function a part is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import c_lines

from shadowmmu.runs.exercised.sources import Function, places

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "exercised"
SRC, HOOK = BUILD / "src", BUILD / "hook.so"
_CALL = re.compile(r"^ *[0-9a-f]+:\tcall .*<__sanitizer_cov_trace_pc(?:@plt)?>\n *([0-9a-f]+):", flags=re.M)

Part = tuple[str, int]
"""A compiled module's file, and the offset to which the part's call returns."""


def build() -> None:
    """The package in a folder of its own, with the engine that tells; only what changed is built again."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for stale in (path for path in SRC.rglob("*") if path.is_file() and path.suffix != ".so"):
        stale.unlink()
    translated = ["setup.py", "-q", "build_py", "--build-lib", str(SRC)]
    compiled = ["build_ext", "--flavour", "parts", "--build-lib", str(SRC), "--build-temp", str(BUILD / "objects")]
    subprocess.run([sys.executable, *translated, *compiled], cwd=ROOT, check=True)
    shutil.rmtree(SRC / "shadowmmu" / "captures" / "shipped")  # some of the captures; all are wanted
    (BUILD / "tests").unlink(missing_ok=True)
    (BUILD / "tests").symlink_to(ROOT / "tests")
    build_hook(HOOK)


def build_hook(into: Path) -> None:
    """What that engine calls, to be preloaded."""
    source = Path(__file__).with_name("parts.c")
    subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(into), str(source), "-ldl"], check=True)


def parts() -> dict[Part, tuple[Function, int]]:
    """Of each part of the engine the function, and which part of it. What is inline is in every module that uses it, the same parts."""
    at_line = {(f"shadowmmu/{place.file}", line): place.function for place in places() for line in range(place.first, place.last + 1)}
    found: dict[Part, tuple[Function, int]] = {}
    for module in sorted((SRC / "shadowmmu" / "engine").rglob("*.so")):
        offsets, met = list(call_sites(module)), Counter[Function]()
        for offset, line in zip(offsets, _lines(module, offsets), strict=True):
            function = at_line.get(line) if line else None
            if function is not None:
                found[str(module), offset] = function, met[function]
                met[function] += 1
    return found


def sizes(of: dict[Part, tuple[Function, int]]) -> Counter[Function]:
    """How many parts each function has."""
    return Counter(function for function, _ in set(of.values()))


def call_sites(module: Path) -> Iterator[int]:
    """To which offsets the parts' calls return."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(module)], check=True, capture_output=True, text=True).stdout
    return (int(found[1], 16) for found in _CALL.finditer(text))


def _lines(module: Path, offsets: list[int]) -> Iterator[tuple[str, int] | None]:
    """The line of source that each part is made of."""
    asked = "\n".join(f"{offset - 1:x}" for offset in offsets)
    told = subprocess.run(["addr2line", "-e", str(module)], input=asked, check=True, capture_output=True, text=True).stdout
    origins: dict[str, list[tuple[str, int] | None]] = {}
    for line in told.splitlines():
        file, _, number = line.partition(" ")[0].rpartition(":")
        if not file.endswith(".c") or not number.isdigit():
            yield None
            continue
        if file not in origins:
            origins[file] = c_lines.origins(Path(file), c_lines.END)
        yield origins[file][int(number)]
