"""Where verbs write: one console for people, bytes for programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from shadowmmu.errors import BadInput
from shadowmmu.view.data import to_json

WIDTH = 100


def console() -> Console:
    """Standard output. A terminal has its own width; a pipe or a file gets WIDTH columns."""
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(width=WIDTH, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    sys.stdout.buffer.write(to_json(value) + b"\n")


def open_for_writing(path: Path) -> TextIO:
    try:
        return path.open("w")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}; name a file in a directory you may write to") from None
