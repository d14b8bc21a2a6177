# SPDX-License-Identifier: GPL-2.0-only
"""One run in a process of its own, for an engine that may crash or never end.

`python -m shadowmmu.runs.own_process WHAT ROOTS KERNEL STEPS [last | FILE]` prints a run of a guest to so many exits, or of a list of
operations, as JSON, or the events of the last of them; all events of a guest go to the file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from shadowmmu.check.bugs.signals import signals_raise
from shadowmmu.machine.loader import read_guest
from shadowmmu.runs.event_log import EventLog
from shadowmmu.runs.measured import Measured, Told, events_of_exit, measure
from shadowmmu.runs.operations_run import OperationsRun, is_list, read_list

LAST = "last"
PATIENCE, TIMES_LONGER = 60, 10
"""Seconds, and how many times as long as was thought: a broken engine may never end."""


class OwnProcess:
    """Runs on the engine whose checkout is `tree`; None: on this one. `trace`: where the events of a guest's run go."""

    def __init__(self, tree: Path | None = None, trace: Path | None = None) -> None:
        self.tree, self.trace = tree, trace

    def measure(self, what: Path, roots: str, kernel: str, steps: int, seconds: float) -> Measured:
        """Run it. That it crashes, or has not ended when it should have, is what is told of it."""
        limit = PATIENCE + TIMES_LONGER * seconds
        try:
            trace = [] if self.trace is None else [str(self.trace.absolute())]
            done = self._run(limit, str(what), roots, kernel, str(steps), *trace)
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

    def events_of(self, what: Path, roots: str, kernel: str, step: int) -> list[Told]:
        """What its MMU told at one exit or operation; nothing if it does not get there."""
        try:
            done = self._run(PATIENCE, str(what), roots, kernel, str(step), LAST)
        except subprocess.TimeoutExpired:
            return []
        with suppress(msgspec.MsgspecError):
            return [] if done.returncode else msgspec.json.decode(done.stdout, type=list[Told])
        return []

    def _run(self, limit: float, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "shadowmmu.runs.own_process", *arguments]
        place = os.environ if self.tree is None else os.environ | {"PYTHONPATH": str(self.tree / "src")}
        with signals_raise():
            return subprocess.run(command, env=place, capture_output=True, timeout=limit, check=False)

    def _broken(self, why: str) -> Measured:
        return Measured(verdict=why, broke=why)


def main(named: str, roots: str, kernel: str, steps: str, trace: str = "") -> None:
    told = _of_guest if not is_list(Path(named)) else _of_list
    sys.stdout.buffer.write(msgspec.json.encode(told(named, roots, kernel, int(steps), trace)))


def _of_list(named: str, roots: str, kernel: str, steps: int, trace: str) -> Measured | list[Told]:
    setup, operations = read_list(Path(named))
    setup = setup._replace(roots=roots, kernel=kernel)
    return OperationsRun(setup, operations, steps).kept() if trace == LAST else OperationsRun(setup, operations).run()


def _of_guest(named: str, roots: str, kernel: str, exits: int, trace: str) -> Measured | list[Told]:
    guest = read_guest(named)
    if trace == LAST:
        return events_of_exit(guest, named, roots, kernel, exits)
    if not trace:
        return measure(guest, named, roots, kernel, exits)
    with EventLog(Path(trace)) as log:
        log.start()
        return measure(guest, named, roots, kernel, exits, log=log)


if __name__ == "__main__":
    main(*sys.argv[1:])
