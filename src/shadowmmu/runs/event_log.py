# SPDX-License-Identifier: GPL-2.0-only
"""The engine's events in the trace grammar's text form, each exit's under a marker; two such files can be diffed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import TextIO

from shadowmmu.errors import BadInput
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit
from shadowmmu.trace.engine import from_record
from shadowmmu.trace.events import Marker
from shadowmmu.trace.text import HEADER, to_text

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC


class EventLog:
    """Writes what a machine's engine tells; `on_exit` is the hook for the machine. A context, at the end of which all is written.

    The file is opened by `start`, so that nothing of it is lost if there is no run. Raises BadInput when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def start(self) -> None:
        """Open the file; a named pipe must have a reader by now."""
        try:
            number = os.open(self._path, _FLAGS, 0o666)
            os.set_blocking(number, True)
            self._file = open(number, "w")  # noqa: SIM115
        except (OSError, ValueError) as error:
            nobody = isinstance(error, OSError) and error.errno == errno.ENXIO
            raise self._broken("nobody reads this pipe" if nobody else error) from None
        self._write([HEADER])

    def on_exit(self, machine: Machine, exit_: Exit) -> None:
        events = [Marker(text=f"exit {machine.exits}: {exit_.kind.value}"), *map(from_record, machine.vm.records())]
        self._write([to_text(event) for event in events])

    def _write(self, lines: list[str]) -> None:
        assert self._file is not None
        try:
            self._file.writelines(line + "\n" for line in lines)
        except OSError as error:
            raise self._broken(error) from None

    def _broken(self, why: Exception | str) -> BadInput:
        said = getattr(why, "strerror", None) or why
        return BadInput(f"cannot write {self._path}: {said}; name a file in a directory you may write to")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as failure:
            if error is None:
                raise self._broken(failure) from None
