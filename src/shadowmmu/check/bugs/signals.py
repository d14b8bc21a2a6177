# SPDX-License-Identifier: GPL-2.0-only
"""SIGTERM and SIGHUP while other processes work for this one: it ends in order, and they, with what lies on the disk, go with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_raise() -> Iterator[None]:
    """Those that would end the process at once raise SystemExit instead. None of its own engine's callbacks may run in it: an exception
    is lost there."""
    is_main = threading.current_thread() is threading.main_thread()
    taken = [number for number in ENDS if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
