# SPDX-License-Identifier: GPL-2.0-only
"""Stops a guest that runs on without an exit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

PATIENCE = 5.0
"""CPU seconds without an exit; a captured guest needs milliseconds. A machine that has no time for us makes nobody bark."""
LOOKS = 10
"""How often it is looked while patience lasts."""


class Watchdog:
    """Calls `stop` from another thread when `progress()` has stood still for too long, and has then `barked`."""

    def __init__(self, stop: Callable[[], None], progress: Callable[[], int], patience: float = PATIENCE) -> None:
        self.barked = False
        self._stop, self._progress, self._patience = stop, progress, patience
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="shadowmmu-watchdog", daemon=True)

    def _watch(self) -> None:
        before, since = -1, 0.0
        while not self._over.wait(self._patience / LOOKS):
            now = self._progress()
            if now != before:
                before, since = now, time.process_time()
            elif time.process_time() - since > self._patience:
                self.barked = True
                self._stop()

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
