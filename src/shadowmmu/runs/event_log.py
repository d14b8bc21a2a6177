# SPDX-License-Identifier: GPL-2.0-only
"""The engine's events in the trace grammar's text form, each exit's under a marker; two such files can be diffed."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from shadowmmu.border.limits import PATIENCE
from shadowmmu.errors import BadInput
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit
from shadowmmu.trace.engine import from_record
from shadowmmu.trace.events import AnyEvent, Marker
from shadowmmu.trace.text import HEADER, to_text

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC


_BLOCK = 1 << 16
"""Bytes that are written at a time."""


class EventLog:
    """Writes what a machine's engine tells; `on_exit` is the hook for the machine. A context, at the end of which all is written.

    The file is opened by `start`, so that nothing of it is lost if there is no run. Raises BadInput when it cannot be written, which
    holds for a pipe, too, whose reader takes nothing for long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._waits = bytearray()

    def start(self) -> None:
        """Open the file; a named pipe must have a reader by now."""
        try:
            self._file = os.open(self._path, _FLAGS, 0o666)
        except (OSError, ValueError) as error:
            nobody = isinstance(error, OSError) and error.errno == errno.ENXIO
            raise self._broken("nobody reads this pipe" if nobody else error) from None
        self._write([HEADER])

    def on_exit(self, machine: Machine, exit_: Exit) -> None:
        self.write(machine.exits, exit_, map(from_record, machine.vm.records()))

    def write(self, number: int, exit_: Exit, events: Iterable[AnyEvent]) -> None:
        """What the engine told at an exit."""
        self._write([to_text(event) for event in (Marker(text=f"exit {number}: {exit_.kind.value}"), *events)])

    def _write(self, lines: list[str]) -> None:
        self._waits += "".join(line + "\n" for line in lines).encode()
        if len(self._waits) >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        assert self._file is not None
        ready = select.poll()
        ready.register(self._file, select.POLLOUT)
        try:
            while self._waits:
                if not ready.poll(PATIENCE * 1000):
                    raise TimeoutError(f"who reads it has taken nothing for {PATIENCE} seconds")
                self._write_some()
        except OSError as error:
            self._waits.clear()
            raise self._broken(error) from None

    def _write_some(self) -> None:
        assert self._file is not None
        with suppress(BlockingIOError):  # a pipe may have less room than it promised
            del self._waits[: os.write(self._file, self._waits)]

    def _broken(self, why: Exception | str) -> BadInput:
        said = getattr(why, "strerror", None) or why
        return BadInput(f"cannot write {self._path}: {said}; name a file in a directory you may write to")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is None:
            return
        try:
            self._flush()
        except BadInput:
            if error is None:
                raise
        finally:
            os.close(self._file)
