# SPDX-License-Identifier: GPL-2.0-only
"""Episodes in a process of their own: a crash of the engine is a find like any other, with its seed and its operations."""

import gc
import mmap
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from shadowmmu.check.fuzz.operations import Op, Setup
from shadowmmu.check.fuzz.search import Failure, replay, shrink
from shadowmmu.check.fuzz.story import OPERATIONS
from shadowmmu.check.fuzz.variety import settle
from shadowmmu.errors import BadInput

WIDTH = 16  # of one field of an operation: a store may have as many bytes
OPERATION = WIDTH * len(Op._fields)


class Diary:
    """The operations of the episode that runs, in memory that outlives its process. Each is written before it is done."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 16 + OPERATIONS * OPERATION)

    def begin(self, seed: int) -> None:
        self.memory[:16] = struct.pack("<QQ", seed, 0)

    def write(self, op: Op) -> None:
        (count,) = struct.unpack_from("<Q", self.memory, 8)
        at = 16 + count % OPERATIONS * OPERATION
        self.memory[at : at + OPERATION] = b"".join(field.to_bytes(WIDTH, "little") for field in op)
        struct.pack_into("<Q", self.memory, 8, count + 1)

    def read(self) -> tuple[int, list[Op]]:
        """The seed, and what was done."""
        seed, count = struct.unpack_from("<QQ", self.memory)
        return seed, [self._operation(16 + number * OPERATION) for number in range(min(count, OPERATIONS))]

    def _operation(self, at: int) -> Op:
        return Op(*(int.from_bytes(self.memory[start : start + WIDTH], "little") for start in range(at, at + OPERATION, WIDTH)))


class Child:
    """A process of its own that does `work`, and says things. A terminal's Ctrl-C comes to both, and this one alone hears it."""

    def __init__(self, work: Callable[[Callable[[Any], None]], None]) -> None:
        context = get_context("fork")
        self.pipe, there = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(work, there, self.pipe), daemon=True)  # it is ended with this one
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # and so it stays in the other
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()

    def hear(self) -> Any:
        """What it says next; None: it says no more."""
        try:
            return self.pipe.recv()
        except EOFError:
            return None

    def end(self) -> int:
        """Wait for its end: 0, or the number of the signal that ended it."""
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        if code > 0:
            raise RuntimeError("the process that does the operations ended with an error, which stands above")
        return -code

    def kill(self) -> None:
        self.process.kill()
        self.end()


def apart(work: Callable[[Callable[[Any], None]], None], told: Callable[[Any], None]) -> int:
    """Do `work` in a process of its own; what it says comes to `told`. 0, or the number of the signal that ended it."""
    child = Child(work)
    while True:
        said = child.hear()
        if said is None:
            return child.end()
        told(said)


def _work(work: Callable[[Callable[[Any], None]], None], there: Connection, here: Connection) -> None:
    here.close()
    gc.freeze()  # what is there before the first VM stays: no collection looks at it again
    gc.set_threshold(20_000)  # an operation leaves hundreds of objects, none of them in a circle
    with suppress(BrokenPipeError):  # whoever asked has been ended
        work(there.send)


def replay_apart(setup: Setup, ops: list[Op]) -> Failure | None:
    """`replay`, whose crash is a failure."""
    diary, found = Diary(), list[tuple[Failure | None]]()
    crash = apart(lambda say: say((replay(setup, ops, diary=diary),)), found.append)
    return crash_of(setup, diary, crash) if crash else found[0][0]


def shrink_apart(failure: Failure, runs: int = 400) -> Failure:
    """`shrink`, of a crash by replays in processes of their own."""
    return shrink(failure, runs, again=replay_apart if failure.crash else None)


def crash_of(setup: Setup, diary: Diary, number: int) -> Failure:
    """What was being done when signal `number` came. Raises BadInput for one that the engine did not earn."""
    if number in (signal.SIGKILL, signal.SIGTERM):
        name = signal.Signals(number).name
        raise BadInput(f"the process that does the operations was ended by {name}: give it more memory, or fewer --jobs, and run it again")
    seed, ops = diary.read()
    name = signal.Signals(number).name
    return Failure(settle(setup._replace(seed=seed)), ops, f"operation {len(ops)}: the engine crashed: {name}", crash=True)
