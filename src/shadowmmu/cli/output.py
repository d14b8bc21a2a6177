"""Where verbs write: one console for people, bytes for programs."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from shadowmmu.view.data import to_json

WIDTH = 100


def console() -> Console:
    """Standard output. A terminal has its own width; a pipe or a file gets WIDTH columns."""
    out = Console(highlight=False, markup=False, emoji=False)
    return out if out.is_terminal else Console(width=WIDTH, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    sys.stdout.buffer.write(to_json(value) + b"\n")
