# SPDX-License-Identifier: GPL-2.0-only
"""Gives up a machine that gets nowhere: by what it has done since its last word, not by the time that has passed.

On a busy host a machine gets little of the CPU. That is not its fault, and costs it no patience.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PATIENCE = 120
"""Seconds of work, or of sleep, without a word: for a boot or a guest. The runner gives up a guest long before."""
LOOK = 1.0
"""Seconds from one look to the next."""
STATE, USER_TIME, SYSTEM_TIME = 0, 11, 12
"""Fields of /proc/PID/stat behind the program's name (proc(5))."""


class Watched(Protocol):
    """What is known of the machine."""

    def worked(self) -> float:
        """CPU seconds that it has had so far."""

    def wants_cpu(self) -> bool:
        """It runs, or would if it were let: it does not sleep."""


class Process:
    """A process and its threads, as the host's kernel tells of them. One that is over sleeps."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)

    def worked(self) -> float:
        told = _fields(self._folder)
        return (int(told[USER_TIME]) + int(told[SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK") if told else 0.0

    def wants_cpu(self) -> bool:
        return any(_fields(thread)[:1] == ["R"] for thread in self._folder.glob("task/*"))


def _fields(folder: Path) -> list[str]:
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Watchdog:
    """Calls `act` once if too much is done without a word."""

    def __init__(self, watched: Watched, act: Callable[[], None]) -> None:
        self.barked = False
        self._watched, self._act = watched, act
        self._worked, self._spent = watched.worked(), 0.0

    def look(self) -> None:
        worked = self._watched.worked()
        self._spent += worked - self._worked if self._watched.wants_cpu() else LOOK
        self._worked = worked
        if self._spent > PATIENCE and not self.barked:
            self.barked = True
            self._act()

    def heard(self) -> None:
        self._spent = 0.0

    def watch(self, over: threading.Event) -> None:
        """Look again and again, in a thread of its own, until it is over."""
        while not over.wait(LOOK):
            self.look()
