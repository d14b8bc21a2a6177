# SPDX-License-Identifier: GPL-2.0-only
"""A run in processes of its own, one or several. Each does a row of the episodes that one process would do one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from shadowmmu.check.fuzz.apart import Child, Diary, crash_of
from shadowmmu.check.fuzz.operations import Setup
from shadowmmu.check.fuzz.search import EPISODE, Report, fuzz


class Job:
    """One process, and what it has said last."""

    def __init__(self, setup: Setup, operations: int, seconds: float | None) -> None:
        self.setup, self.diary, self.report = setup, Diary(), Report()

        def work(say: Callable[[Any], None]) -> None:
            kernel, diary, seed = setup.kernel, self.diary, setup.seed
            say(fuzz(seed, operations, setup.modes, setup.roots, setup.audit_every, say, kernel=kernel, diary=diary, seconds=seconds))

        self.child = Child(work)

    def hear(self) -> bool:
        """What it says next. False: it has ended, by a crash perhaps, which is a failure."""
        said = self.child.hear()
        if said is not None:
            self.report = said
            return True
        crash = self.child.end()
        if crash:
            self.report.failure = crash_of(self.setup, self.diary, crash)
            self.report.operations += len(self.report.failure.operations)
        return False


def fuzz_apart(
    setup: Setup, operations: int, on_progress: Callable[[Report], None] | None = None, seconds: float | None = None, jobs: int = 1
) -> Report:
    """`fuzz`, whose crash is a failure, in so many processes. When one has failed the others are ended."""
    running = [Job(setup._replace(seed=seed), count, seconds) for seed, count in _shares(setup.seed, operations, jobs)]
    started = tuple(running)
    while running:
        for pipe in wait([job.child.pipe for job in running]):
            job = next(job for job in running if job.child.pipe is pipe)
            if not job.hear():
                running.remove(job)
            if job.report.failure is not None:
                for other in running:
                    other.child.kill()
                return together(started)
        if on_progress is not None:
            on_progress(together(started))
    return together(started)


def _shares(seed: int, operations: int, jobs: int) -> list[tuple[int, int]]:
    """The first seed and the operations of each: whole episodes, but for the last."""
    episodes = -(-operations // EPISODE)
    each = -(-episodes // jobs)
    firsts = range(0, episodes, each)
    return [(seed + first, min(each * EPISODE, operations - first * EPISODE)) for first in firsts]


def together(jobs: Sequence[Job]) -> Report:
    """All reports as one; of several failures the first seed's."""
    whole = Report()
    for report in (job.report for job in jobs):
        whole.operations += report.operations
        whole.episodes += report.episodes
        whole.coverage.update(report.coverage)
        whole.counters.update(report.counters)
        whole.excused.update(report.excused)
        whole.failure = whole.failure or report.failure
    return whole
