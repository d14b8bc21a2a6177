"""The engine's events in the trace grammar's text form, each exit's under a marker; two such files can be diffed."""

from __future__ import annotations

from typing import TextIO

from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit
from shadowmmu.trace.engine import from_record
from shadowmmu.trace.events import Marker
from shadowmmu.trace.text import HEADER, to_text


class EventLog:
    """Writes what a machine's engine tells; `on_exit` is the hook for the machine."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        file.write(HEADER + "\n")

    def on_exit(self, machine: Machine, exit_: Exit) -> None:
        events = [Marker(text=f"exit {machine.exits}: {exit_.kind.value}"), *map(from_record, machine.vm.records())]
        self._file.writelines(to_text(event) + "\n" for event in events)
