# SPDX-License-Identifier: GPL-2.0-only
"""Every source says its licence in its first lines."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("src", "tests", "tools", "capture", "guests", "benchmarks")
SOURCES = {".py", ".pxd", ".pyi", ".c", ".h", ".asm", ".inc"}


def test_every_source_has_an_spdx_line() -> None:
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in SOURCES and path.stat().st_size]
    silent = [path for path in sources if "build" not in path.parts and path.name != "_cyutility.c"
              and "SPDX-License-Identifier: GPL-2.0-only" not in path.read_text()[:300]]  # fmt: skip
    assert len(sources) > 400 and not silent
