# SPDX-License-Identifier: GPL-2.0-only
"""Many bugs hunted, several at a time: each has a copy of the engine of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import get_context

from shadowmmu.check.bugs.bug import Bug
from shadowmmu.check.bugs.hunt import Verdict, hunt_bug
from shadowmmu.check.bugs.signals import signals_raise
from shadowmmu.errors import BadInput


def hunt_bugs(bugs: Sequence[Bug], seconds: int, hunts: int, jobs: int = 1) -> Iterator[Verdict]:
    """What came of each, in their order. One that cannot be put in is a verdict with the reason."""
    hunt = partial(_hunt, seconds=seconds, hunts=hunts)
    if jobs == 1:
        yield from map(hunt, bugs)
        return
    with signals_raise(), get_context("fork").Pool(min(jobs, len(bugs)), _leave_to_the_parent) as pool:  # ended with its block, by SIGTERM
        yield from pool.imap(hunt, bugs)


def _leave_to_the_parent() -> None:
    """A terminal's Ctrl-C comes to all of them: the parent hears it, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _hunt(bug: Bug, seconds: int, hunts: int) -> Verdict:
    try:
        return hunt_bug(bug, seconds, hunts)
    except BadInput as error:
        return Verdict(bug.id, bug.title, reason=str(error))
