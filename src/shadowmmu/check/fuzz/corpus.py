# SPDX-License-Identifier: GPL-2.0-only
"""A kept corpus: lists of operations that reach what no other reaches. They are run again first, then new episodes, which add to it.

What a list reaches: outcomes of operations, powers of two of the engine's counters, roles of shadow pages. A list that reaches
something new is cut behind the operation by which it has, and made shorter; one that reaches nothing of its own any more goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from shadowmmu.border.files import parsing, read_file, write_file
from shadowmmu.border.limits import OPERATIONS
from shadowmmu.check.fuzz.apart import Diary, apart, crash_of
from shadowmmu.check.fuzz.operations import Op, Setup
from shadowmmu.check.fuzz.search import THOROUGH, Episode, Report, fuzz, replay
from shadowmmu.check.fuzz.story import read_story, write_story
from shadowmmu.errors import BadInput

LISTS = 1000
"""Files of one corpus."""
TRIES = 24
"""Replays in which a new list is made shorter."""
NEXT = "next"
"""The file that says with which seed to go on."""
REMEDY = "name a folder that `shadowmmu fuzz --corpus` has made, or a new one"

Told = Callable[[Report], None]


def reached(report: Report, vm: Any) -> set[str]:
    """What a run has reached, whose last VM this is."""
    powers = {f"{name} 2^{power}" for name, count in vm.counters().items() for power in range(count.bit_length())}
    return set(report.coverage) | powers | roles(vm)


def roles(vm: Any) -> set[str]:
    return {f"role {page.role:#x}{' unsync' if page.unsync else ''}{' special' if page.special else ''}" for page in vm.shadow_pages()}


@dataclass
class Corpus:
    """Its folder, what its lists reach together, and the seed to go on with. Raises BadInput for a folder of something else."""

    folder: Path
    known: set[str] = field(default_factory=set)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise BadInput(f"{self.folder} is no folder; {REMEDY}")
        path = self.folder / NEXT
        if path.exists():
            with parsing(str(path), REMEDY):
                self.seed = int(read_file(path, 100, str(path), REMEDY)) & (1 << 64) - 1

    def lists(self) -> list[tuple[Path, Setup, list[Op]]]:
        """All of it, the shortest first, so that a longer one that reaches the same goes."""
        paths = sorted(self.folder.glob("*.ops"))
        if len(paths) > LISTS:
            raise BadInput(f"{self.folder} has {len(paths):,} lists, no more than {LISTS:,} are run: delete some")
        found = list[tuple[Path, Setup, list[Op]]]()
        for path in paths:
            text = read_file(path, OPERATIONS, str(path), REMEDY).decode(errors="replace")
            with parsing(str(path), REMEDY):
                found.append((path, *read_story(text)))
        return sorted(found, key=lambda entry: len(entry[2]))

    def run_again(self, whole: Report) -> None:
        """Its lists, until one is a failure. What reaches nothing of its own is deleted."""
        for path, setup, ops in self.lists():
            report, new = run_apart(setup, ops)
            whole.operations += report.operations
            whole.episodes += 1
            whole.coverage.update(report.coverage)
            whole.failure = report.failure
            if not report.ok:
                return
            if new <= self.known:
                path.unlink(missing_ok=True)
            self.known |= new

    def add(self, episode: Episode) -> None:
        """An episode that has ended well: kept, as far as it reaches more than all before."""
        new = reached(episode.report, episode.guest.vm) - self.known
        if new:
            self.known |= new
            shorter = shortest(episode.setup, episode.done, new)
            self._keep(episode.setup, shorter, f"reaches {', '.join(sorted(new))[:300]}")
        self.go_on(episode.setup.seed + 1)

    def _keep(self, setup: Setup, ops: Sequence[Op], why: str) -> None:
        text = write_story(setup, list(ops), why)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / f"{setup.seed}-{crc32(text.encode()):08x}.ops", text.encode())

    def go_on(self, seed: int) -> None:
        self.seed = seed
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.folder / NEXT, f"{seed}\n".encode())


def run_apart(setup: Setup, ops: Sequence[Op]) -> tuple[Report, set[str]]:
    """A list once, in a process of its own: what came of it, and what it reaches."""
    diary, found = Diary(), list[tuple[Report, set[str]]]()

    def work(say: Callable[[Any], None]) -> None:
        episode = Episode(setup, Report(), diary=diary, every=THOROUGH)
        for op in ops:
            if episode.step(op) is None:
                episode.report.failure = replay(setup, ops) or episode.report.failure
                break
        say((episode.report, reached(episode.report, episode.guest.vm)))

    if crash := apart(work, found.append):
        return Report(len(ops), failure=crash_of(setup, diary, crash)), set()
    return found[0]


def reaches(setup: Setup, ops: Sequence[Op], wanted: set[str]) -> int | None:
    """After how many of the operations all of that has been reached, and its pages are there; None: it is not, or something is violated."""
    episode = Episode(setup._replace(audit_every=0), Report())
    for number, op in enumerate(ops, 1):
        if episode.step(op) is None:
            return None
        if wanted <= reached(episode.report, episode.guest.vm):
            return number
    return None


def shortest(setup: Setup, ops: Sequence[Op], wanted: set[str], tries: int = TRIES) -> Sequence[Op]:
    """A list that reaches what is wanted: cut behind it, and without runs of operations that it does not need."""
    best = ops[: reaches(setup, ops, wanted) or len(ops)]
    width = len(best) // 2
    while width and tries:
        start = 0
        while start < len(best) and tries:
            tries -= 1
            without = [*best[:start], *best[start + width :]]
            end = reaches(setup, without, wanted)
            if end is None:
                start += width
            else:
                best = without[:end]
        width //= 2
    return best


def fuzz_kept(folder: Path, setup: Setup, operations: int, told: Told | None = None, seconds: float | None = None) -> Report:
    """The lists of a corpus, then new episodes from where the last run ended (or from a seed that is not 0), in a process of its own."""
    corpus, again = Corpus(folder), Report()
    corpus.run_again(again)
    if not again.ok:
        return again
    diary, said = Diary(), [Report()]

    def hear(report: Report) -> None:
        said[0] = report
        if told is not None:
            told(report)

    def work(say: Told) -> None:
        first, how = setup.seed or corpus.seed, (setup.modes, setup.roots, setup.audit_every, say)
        say(fuzz(first, operations, *how, kernel=setup.kernel, diary=diary, seconds=seconds, on_episode=corpus.add))

    if crash := apart(work, hear):
        said[0].failure = crash_of(setup, diary, crash)
    said[0].operations += again.operations
    said[0].episodes += again.episodes
    said[0].coverage.update(again.coverage)
    return said[0]
