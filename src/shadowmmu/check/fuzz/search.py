# SPDX-License-Identifier: GPL-2.0-only
"""Runs of the fuzz: to search, to replay a recorded list, to shrink it."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.check.fuzz.ept_guest import EptGuest
from shadowmmu.check.fuzz.operations import MODES, Kind, Op, Setup, describe
from shadowmmu.check.fuzz.sense import nonsense
from shadowmmu.check.fuzz.variety import settle
from shadowmmu.check.fuzz.worlds import author_of, guest_of
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.hardware.host_memory import Violation

_NAMES = tuple(name.lower() for _, name in sorted((kind, kind.name) for kind in Kind))
EPISODE = 1000  # operations of one VM: making it costs as much as five
UNSEEN = "entries of tables stored to unseen, by looks of the audit"
SEEDS = 4  # the first so many are tried instead of a longer one that a list has
THOROUGH = 8  # each so many audits of a search look at everything; those of a replay all do


@dataclass
class Failure:
    """The first violation of a run, and how to see it again."""

    setup: Setup
    operations: list[Op]
    message: str
    crash: bool = False
    """The engine's process ended: there was nobody to say more."""

    @property
    def signature(self) -> str:
        """What kind of violation it is: the message without its numbers and sorts of access."""
        text = self.message.partition(": ")[2]
        return re.sub(r"0x[0-9a-f]+|\d+|user|supervisor|read|write|fetch", "", text)[:60]

    @property
    def command(self) -> str:
        """The one command that reproduces it."""
        modes = "" if self.setup.modes == MODES else f" --modes {','.join(self.setup.modes)}"
        audit = "" if self.setup.audit_every == 1 else f" --audit-every {self.setup.audit_every}"
        kernel = "" if self.setup.kernel == DEFAULT_KERNEL else f" --kernel {self.setup.kernel}"
        return (
            f"shadowmmu fuzz --seed {self.setup.seed} --operations {len(self.operations)} --roots {self.setup.roots}{kernel}{modes}{audit}"
        )


@dataclass
class Report:
    """What a run did. `coverage`: how often each kind of operation had each outcome; `excused`: how often the audit excused what."""

    operations: int = 0
    episodes: int = 0
    coverage: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


class Audits(Protocol):
    """Looks at the engine's structures: what is violated, and how many entries it has excused."""

    @property
    def excused(self) -> int: ...
    def __call__(self, thorough: bool = False) -> Sequence[Any]: ...


class Diary(Protocol):
    """Where operations are written down before they are done, so that a crash can be told."""

    def begin(self, seed: int) -> None: ...
    def write(self, op: Op) -> None: ...


class Episode:
    """One guest, its audit, and what has been done so far."""

    def __init__(
        self, setup: Setup, report: Report, make_vm: Callable[..., Any] | None = None, diary: Diary | None = None, every: int = 1
    ) -> None:
        self.setup, self.report, self.diary = setup, report, diary
        if diary is not None:
            diary.begin(setup.seed)
        self.done: list[Op] = []
        self.guest = guest_of(setup, make_vm or import_module("shadowmmu").Vm)
        self.audit: Audits | None = None
        if setup.audit_every:
            self.audit = import_module("shadowmmu.check.audit").Audits(self.guest.vm, untold=self.guest.untold, every=every)

    def step(self, op: Op, last: bool = False) -> str | None:
        """Do `op`, then audit: everything, if it is the last. None: a violation, which is in the report now."""
        self.done.append(op)
        self.report.operations += 1
        if self.diary is not None:
            self.diary.write(op)
        try:
            outcome = self.guest.do(op)
            self.report.coverage[f"{_NAMES[op.kind]} {outcome}"] += 1
            warned = self.guest.vm.bugs()
            if warned:
                raise Violation(f"the engine met what it holds impossible: {', '.join(warned)}")
            if self.audit is not None and (last or len(self.done) % self.setup.audit_every == 0):
                broken = self.audit(last)
                if broken:
                    raise Violation(f"audit: {broken[0]}" + (f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""))
        except Exception as error:
            message = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            self.report.failure = Failure(self.setup, self.done, f"operation {len(self.done)}, {describe(op)}: {message}")
            return None
        return outcome


def fuzz(
    seed: int = 0,
    operations: int = 10_000,
    modes: Sequence[str] = MODES,
    roots: str = "special",
    audit_every: int = 1,
    on_progress: Callable[[Report], None] | None = None,
    *,
    kernel: str = DEFAULT_KERNEL,
    make_vm: Callable[..., Any] | None = None,
    diary: Diary | None = None,
    seconds: float | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> Report:
    """Do `operations` random operations in episodes; stops at the first violation. A pure function of its arguments.

    The failure is that of a replay, all of whose audits are thorough: it names the operation that left what is wrong.

    `seconds`: no operation is begun after so long. `on_episode` is called with each that ends well.
    """
    report, end = Report(), None if seconds is None else time.monotonic() + seconds
    while report.operations < operations and report.ok and not _is_over(end):
        setup = settle(Setup(seed + report.episodes, roots, tuple(modes), audit_every, kernel))
        episode = Episode(setup, report, make_vm, diary, THOROUGH)
        author = author_of(setup, episode.guest)
        for left in reversed(range(min(EPISODE, operations - report.operations))):
            op = author.next()
            outcome = episode.step(op, last=not left)
            if outcome is None or _is_over(end):
                break
            author.learn(op, outcome)
        report.episodes += 1
        report.counters.update(episode.guest.vm.counters())
        if episode.audit is not None:
            report.excused[UNSEEN] += episode.audit.excused
        if on_episode is not None and report.ok:
            on_episode(episode)
        if on_progress is not None:
            on_progress(report)
    if report.failure is not None:
        report.failure = replay(report.failure.setup, report.failure.operations, make_vm) or report.failure
    return report


def _is_over(end: float | None) -> bool:
    return end is not None and time.monotonic() >= end


def replay(setup: Setup, ops: Iterable[Op], make_vm: Callable[..., Any] | None = None, diary: Diary | None = None) -> Failure | None:
    """Do recorded operations on a new VM: the failure, if there is one."""
    report = Report()
    episode = Episode(setup, report, make_vm, diary)
    for op in ops:
        if episode.step(op) is None:
            break
    return report.failure


def perform(setup: Setup, ops: Iterable[Op]) -> Guest | EptGuest:
    """A new VM, as recorded operations leave it; those that end in a violation leave it as it is then."""
    guest = guest_of(setup, import_module("shadowmmu").Vm)
    for op in ops:
        with suppress(Exception):
            guest.do(op)
    return guest


Again = Callable[[Setup, list[Op]], Failure | None]
"""Operations once more, on a new VM."""


def shrink(failure: Failure, runs: int = 400, make_vm: Callable[..., Any] | None = None, again: Again | None = None) -> Failure:
    """The shortest and simplest that fails alike, of at most `runs` replays: half of them to leave out, the others to make simpler."""
    again = again or (lambda setup, ops: replay(setup, ops, make_vm))
    shorter, left = _leave_out(failure, runs - runs // 2, again)
    simpler, left = _simplify(shorter, runs // 2 + left, again)
    return _leave_out(simpler, left, again)[0]


def _fails_alike(failure: Failure, setup: Setup, ops: list[Op], again: Again) -> Failure | None:
    found = again(setup, ops)
    return found if found is not None and found.signature == failure.signature else None


def _leave_out(failure: Failure, runs: int, again: Again) -> tuple[Failure, int]:
    """Delta debugging: leave out runs of operations while the same sort of failure remains. What came of it, and the replays left."""
    best, width = failure, max(1, len(failure.operations) // 2)
    while runs > 0:
        start, shorter = 0, False
        while start < len(best.operations) and runs > 0:
            runs -= 1
            found = _fails_alike(failure, best.setup, best.operations[:start] + best.operations[start + width :], again)
            if found is not None and len(found.operations) < len(best.operations):
                best, shorter = found, True
            else:
                start += width
        if width == 1 and not shorter:
            break
        width = max(1, width // 2)
    return best, runs


def _simplify(failure: Failure, runs: int, again: Again) -> tuple[Failure, int]:
    """Take the plainer of what does as well: whose shadow MMU it is, one mode alone, the host of a small seed, the first vCPU, values
    of 0 and addresses of whole pages."""
    best = failure
    for plainer in (_plain_shadow, _one_mode, _small_seed):
        for setup in plainer(best.setup)[: max(runs, 0)]:
            runs -= 1
            found = _fails_alike(failure, setup, best.operations, again)
            if found is not None:
                best = found
                break
    at = 0
    while runs > 0 and at < len(best.operations):
        found, tried = None, _plainer(best.operations[at])
        while found is None and tried and runs > 0:
            runs -= 1
            found = _fails_alike(failure, best.setup, [*best.operations[:at], tried.pop(0), *best.operations[at + 1 :]], again)
        at += found is None
        best = found or best
    return best, max(runs, 0)


def _plain_shadow(setup: Setup) -> list[Setup]:
    """The shadow MMU of the newest kernel with special roots, or one of the two."""
    one, other = setup._replace(kernel=DEFAULT_KERNEL), setup._replace(roots=Setup(0).roots)
    return [plain for plain in (one._replace(roots=other.roots), one, other) if plain != setup]


def _one_mode(setup: Setup) -> list[Setup]:
    return [setup._replace(modes=(mode,)) for mode in setup.modes] if len(setup.modes) > 1 else []


def _small_seed(setup: Setup) -> list[Setup]:
    """Which is all that says what host and VM it is."""
    return [setup._replace(seed=seed) for seed in range(min(SEEDS, setup.seed))]


def _plainer(op: Op) -> list[Op]:
    """The same operation with less in it, as far as that makes sense: a list is read again."""
    changes = [op._replace(vcpu=0)] if op.vcpu else []
    for name in ("d", "c", "b", "a"):
        value = getattr(op, name)
        changes += [op._replace(**{name: less}) for less in dict.fromkeys((0, value & ~0xFFF)) if less != value]
    return [change for change in changes if not nonsense(change)]
