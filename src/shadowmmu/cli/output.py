# SPDX-License-Identifier: GPL-2.0-only
"""Where verbs write: one console for people, plain ASCII for programs. Neither lets anything from outside steer a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from shadowmmu.border.plain import plain
from shadowmmu.look.data import to_builtins, to_json

WIDTH = 100


class Output(Console):
    """Standard output as it is: text means nothing but itself, be it the guest's, a file's or our own."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(plain(one, "\n") if isinstance(one, str) else one for one in objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text, "\n"), segment.style)


def console() -> Console:
    """Standard output. A terminal has its own width; a pipe or a file gets WIDTH columns."""
    out = Output()
    return out if out.is_terminal else Output(WIDTH)


def print_text(lines: Iterable[str]) -> None:
    """Lines for people and programs alike, each as it is."""
    sys.stdout.writelines(plain(line) + "\n" for line in lines)


def print_json(schema: str, value: Any) -> None:
    """A struct or a dictionary, under the name and version of its form (docs/json.md)."""
    sys.stdout.write(to_json({"schema": schema, **to_builtins(value)}) + "\n")
