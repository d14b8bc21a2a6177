# SPDX-License-Identifier: GPL-2.0-only
"""The `format` files of a kernel's events (/sys/kernel/tracing/events/kvmmmu/*/format): which layout its role words have.

A `print fmt` is the kernel's own source: it names the fields of the role, lists the letters of rights, and has RET_PF_* as numbers.
"""

from __future__ import annotations

import re
from pathlib import Path

from shadowmmu.border.files import read_file
from shadowmmu.border.limits import BUG
from shadowmmu.errors import BadInput
from shadowmmu.trace.ftrace.guess import NEWEST, Kernel, Version

_SIGNS: tuple[tuple[str, Version, Version], ...] = (
    (r"role\.glevels", (2, 6), (2, 6)),
    (r"role\.cr4_pae", (3, 0), (5, 0)),
    (r"sp gen %l?[xu]", (3, 11), NEWEST),
    (r"l%u%s q%u|l%u %u-byte", (4, 13), NEWEST),
    (r"role\.gpte_is_8_bytes", (5, 1), (5, 16)),
    (r"role\.has_4_byte_gpte", (5, 17), NEWEST),
    (r'"rwux"', (7, 2), NEWEST),
    (r"REC->ret == 3\b.*REC->ret == 4\b|REC->ret == 4\b.*REC->ret == 3\b", (5, 16), (5, 18)),
    (r"REC->ret == 4\b.*REC->ret == 5\b|REC->ret == 5\b.*REC->ret == 4\b", (5, 19), (6, 11)),
    (r"REC->ret == 5\b.*REC->ret == 6\b|REC->ret == 6\b.*REC->ret == 5\b", (6, 12), NEWEST),
    (r"REC->retry", (3, 5), (5, 15)),
)
"""What stands in a `print fmt`, and the first and last kernel in which it does."""
MOST_FILES = 64
REMEDY = "name the folder events/kvmmmu of the kernel that was traced, or one format file in it"


def kernel_of_formats(path: Path) -> Kernel:
    """The kernel that has these files: a folder with a folder for each event, or one file. Raises BadInput."""
    files = sorted((*path.glob("*/format"), *path.glob("*.format"))) if path.is_dir() else [path]
    formats = ""
    for file in files[:MOST_FILES]:
        text = read_file(file, BUG, f"format file {file}", REMEDY).decode(errors="replace")
        formats += text if "print fmt:" in text else ""
    found = [(since, until) for pattern, since, until in _SIGNS if re.search(pattern, formats)]
    if not found:
        raise BadInput(f"--formats {path}: there is no format of kvm_mmu_get_page or fast_page_fault: {REMEDY}")
    since, until = max(since for since, _ in found), min(until for _, until in found)
    if since > until:
        raise BadInput(f"--formats {path}: the files are of different kernels, {'.'.join(map(str, since))} and older: {REMEDY}")
    return Kernel(max(since, min(until, (6, 1))), since, until)
