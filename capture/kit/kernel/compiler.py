# SPDX-License-Identifier: GPL-2.0-only
"""Programs of a later Debian, run on this one: each with the loader and the libraries that were extracted with it."""

from __future__ import annotations

import os
from pathlib import Path

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
PROGRAMS = ("usr/bin", "usr/libexec/gcc", "usr/lib")
SUFFIX = ".elf"


def enclose(root: Path) -> None:
    """Put a script in the place of each program below `root`, which starts it so that it takes nothing of this machine's."""
    for folder in PROGRAMS:
        for path in sorted((root / folder).rglob("*")):
            if _is_program(path):
                real = path.with_name(path.name + SUFFIX)
                path.rename(real)
                path.write_text(_script(root, real))
                path.chmod(0o755)


def _is_program(path: Path) -> bool:
    """An executable, and no library."""
    if path.is_symlink() or not path.is_file() or ".so" in path.name or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _script(root: Path, real: Path) -> str:
    """The program's own name is told to it: gcc finds its parts by that."""
    return f'#!/bin/sh\nexec {root / LOADER} --library-path {root / LIBRARIES} --argv0 "$0" {real} "$@"\n'
