# SPDX-License-Identifier: GPL-2.0-only
"""An engine that is not this one: a checkout with somebody's patch, a diff, or a bug of the museum; its runs, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from shadowmmu.check.bugs.copy import changed_functions, copy_of, copy_with, find_bug
from shadowmmu.check.bugs.signals import signals_raise
from shadowmmu.runs.measured import LAST, Measured, Told

PATIENCE, TIMES_LONGER = 60, 10
"""Seconds, and how many times as long as here: a patched engine may never end."""
MORE_EXITS = 2
"""How many times as many exits as here."""


class OtherEngine:
    """A built copy at `tree`. `trace`: where the events of its run go; `changed`: its functions that are not as here."""

    def __init__(self, name: str, tree: Path, trace: Path | None = None) -> None:
        self.name, self.tree, self.trace = name, tree, trace
        self.changed = changed_functions(tree)

    def measure(self, guest: Path, roots: str, kernel: str, exits: int, seconds: float) -> Measured:
        """Run the guest on it. That it crashes, or has not ended when it should have, is what is told of it."""
        limit = PATIENCE + TIMES_LONGER * seconds
        try:
            trace = [] if self.trace is None else [str(self.trace.absolute())]
            done = self._run(limit, str(guest), roots, kernel, str(MORE_EXITS * exits + 1000), *trace)
        except subprocess.TimeoutExpired:
            return self._broken(f"no end after {limit:.0f} s")
        if done.returncode < 0:
            return self._broken(f"the engine crashed: signal {-done.returncode}")
        if done.returncode:
            return self._broken((done.stderr.decode(errors="replace").strip() or "no reason given").splitlines()[-1])
        try:
            return msgspec.json.decode(done.stdout, type=Measured)
        except msgspec.MsgspecError as error:
            return self._broken(f"its run prints something else than its figures: {error}")

    def events_of_exit(self, guest: Path, roots: str, kernel: str, number: int) -> list[Told]:
        """What its MMU told at one exit; nothing if it does not get there."""
        try:
            done = self._run(PATIENCE, str(guest), roots, kernel, str(number), LAST)
        except subprocess.TimeoutExpired:
            return []
        with suppress(msgspec.MsgspecError):
            return [] if done.returncode else msgspec.json.decode(done.stdout, type=list[Told])
        return []

    def _run(self, limit: float, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "shadowmmu.runs.measured", *arguments]
        place = os.environ | {"PYTHONPATH": str(self.tree / "src")}
        with signals_raise():
            return subprocess.run(command, env=place, capture_output=True, timeout=limit, check=False)

    def _broken(self, why: str) -> Measured:
        return Measured(verdict=why, broke=why)


@contextmanager
def other_engine(named: str, trace: Path | None = None) -> Iterator[OtherEngine]:
    """Copied and built; gone afterwards. Raises BadInput if it is none, does not fit or does not compile."""
    with tempfile.TemporaryDirectory(prefix="shadowmmu-engine-") as place:
        tree, path = Path(place), Path(named)
        if path.is_dir():
            copy_of(path, tree)
        else:
            copy_with(find_bug(named), tree)
        yield OtherEngine(path.resolve().name.partition(".")[0], tree, trace)
