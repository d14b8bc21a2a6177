# SPDX-License-Identifier: GPL-2.0-only
"""What is run several times and compared: a guest, the guest of a capture, or a recorded list of operations."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.validate import undoable
from shadowmmu.check.fuzz.apart import apart
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import Guest
from shadowmmu.runs.captured_run import CapturedRun, events_of_step
from shadowmmu.runs.measured import Measured, Told, events_of_exit, measure
from shadowmmu.runs.operations_run import OperationsRun, read_list

SPECIAL = "special"


class Subject(Protocol):
    """It is run on the root design and kernel that it is asked for; `roots` and `kernel` are its own."""

    name: str
    title: str
    roots: str
    kernel: str

    def measure(self, roots: str, kernel: str, audits: bool) -> Measured:
        """One run, in figures."""

    def events_of(self, roots: str, kernel: str, step: int) -> list[Told]:
        """What the MMU told at one step of it."""


class FileSubject(Subject, Protocol):
    """What another engine can be given by the path of its file."""

    path: Path


class GuestSubject:
    """A guest, of the file `path`; `named` on the command line."""

    def __init__(self, guest: Guest, path: Path, named: str) -> None:
        self.guest, self.path, self.named = guest, path, named
        self.name, self.title = guest.name, guest.title
        self.roots, self.kernel = SPECIAL, DEFAULT_KERNEL

    def measure(self, roots: str, kernel: str, audits: bool) -> Measured:
        return measure(self.guest, self.named, roots, kernel, audits=audits)

    def events_of(self, roots: str, kernel: str, step: int) -> list[Told]:
        return events_of_exit(self.guest, self.named, roots, kernel, step)


class CapturedSubject:
    """A captured guest run as code, on the captured kernel's root design."""

    def __init__(self, name: str, capture: Capture) -> None:
        self.name, self.title, self.capture = name, "", capture
        self.roots, self.kernel = SPECIAL, capture.setup.series

    def measure(self, roots: str, kernel: str, audits: bool) -> Measured:
        with undoable(self.name):
            return CapturedRun(self.capture, kernel).run()

    def events_of(self, roots: str, kernel: str, step: int) -> list[Told]:
        with undoable(self.name):
            return events_of_step(self.capture, kernel, step)


class ListSubject:
    """A recorded list of operations, which may have been recorded because the engine crashed. Raises BadInput."""

    def __init__(self, path: Path) -> None:
        self.setup, self.operations = read_list(path)
        if not self.operations:
            raise BadInput(f"{path} has no operations: give a list that `shadowmmu fuzz --save` wrote")
        self.path, self.name = path, path.name
        self.title = f"{len(self.operations):,} operations of seed {self.setup.seed}"
        self.roots, self.kernel = self.setup.roots, self.setup.kernel

    def measure(self, roots: str, kernel: str, audits: bool) -> Measured:
        told = list[Measured]()
        crash = apart(lambda say: say(self._run(roots, kernel).run()), told.append)
        if crash:
            told = [Measured(verdict=f"the engine crashed: signal {crash}", broke=f"signal {crash}")]
        own = (roots, kernel) == (self.roots, self.kernel)
        told[0].reproduce = f"shadowmmu fuzz --ops {self.path}" + ("" if own else f", with roots {roots} and kernel {kernel} in its head")
        return told[0]

    def events_of(self, roots: str, kernel: str, step: int) -> list[Told]:
        told = list[list[Told]]()
        apart(lambda say: say(self._run(roots, kernel, step).kept()), told.append)
        return told[0] if told else []

    def _run(self, roots: str, kernel: str, wanted: int = 0) -> OperationsRun:
        return OperationsRun(self.setup._replace(roots=roots, kernel=kernel), self.operations, wanted)
