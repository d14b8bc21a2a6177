# SPDX-License-Identifier: GPL-2.0-only
"""A run as it goes on: the guest's output, and below it, on a terminal, how far the run has come."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.machine.machine import Machine

INTERVAL = 0.125
"""Seconds between two looks at the counters."""


class LiveRun:
    """Hooks for a machine. Use as a context manager around the run; `seconds` is its wall time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._start = self._last = time.monotonic()
        self._last_exits = 0
        self._seconds: float | None = None

    def __enter__(self) -> LiveRun:
        self._start = self._last = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._seconds = time.monotonic() - self._start
        self._live.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start if self._seconds is None else self._seconds

    def on_output(self, text: str) -> None:
        """Print a line of the guest's, set off from our own."""
        line = Text("│ ", style="dim").append(plain(text.rstrip("\n"), "\t"), _style(text))
        self._console.print(line, soft_wrap=True)

    def on_look(self, machine: Machine) -> None:
        """Look at the counters now and then."""
        now = time.monotonic()
        if now - self._last < INTERVAL or not self._live.is_started:
            return
        rate = (machine.exits - self._last_exits) / (now - self._last)
        self._last, self._last_exits = now, machine.exits
        counters = machine.vm.counters()
        faults = f"faults: {counters['pf_fixed']:,} fixed, {counters['pf_guest']:,} injected"
        text = f"  {machine.exits:,} exits, {rate:,.0f} a second · {faults} · {counters['n_used_mmu_pages']} shadow pages"
        self._live.update(Text(text, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)


def _style(line: str) -> str:
    return "green not dim" if line.startswith("PASS") else "bold red not dim" if line.startswith("FAIL") else "not dim"
