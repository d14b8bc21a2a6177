# SPDX-License-Identifier: GPL-2.0-only
"""Ctrl-C while a guest runs: the run ends between two exits.

Python runs a signal handler wherever it happens to be, and an exception raised inside a callback of the CPU is printed and
lost. So while a guest runs the handler only takes a note.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class CtrlC:
    """Takes SIGINT over for the time of a `with`, where Python's own handler had it and in the main thread only.

    stop    called at once, to have the CPUs return soon
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._pending = self._taken = False

    def __enter__(self) -> "CtrlC":
        self._taken = (
            threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._taken:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if error is None:
            self.check()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._pending = True
        self._stop()

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a signal."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
