"""Where verbs write: one console for people, bytes for programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from shadowmmu.errors import BadInput
from shadowmmu.look.data import to_json

WIDTH = 100


class Output(Console):
    """Standard output as it is: text means nothing but itself, and a reader that leaves is `main`'s to judge."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console() -> Console:
    """Standard output. A terminal has its own width; a pipe or a file gets WIDTH columns."""
    out = Output()
    return out if out.is_terminal else Output(WIDTH)


def print_json(value: Any) -> None:
    sys.stdout.buffer.write(to_json(value) + b"\n")


def open_for_writing(path: Path) -> TextIO:
    try:
        return path.open("w")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}; name a file in a directory you may write to") from None
