# SPDX-License-Identifier: GPL-2.0-only
"""Hunts of one bug: nothing is known of it but the copy of the engine that it is in.

The seeds come from the bug's name, the judges are those of a clean run (`judges_hash` is printed with both), and four of
five hunts must find it. A crash or a hang of the copy is a find: the clean engine does neither.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from shadowmmu.check.bugs.bug import Bug
from shadowmmu.check.bugs.copy import checkout, copy_with
from shadowmmu.check.bugs.signals import signals_raise
from shadowmmu.check.fuzz import ANY, MODES
from shadowmmu.errors import BadInput

HUNTS, ENOUGH = 5, 4
OPERATIONS = 1_000_000_000
"""More than a hunt's seconds allow."""
GRACE = 60
"""Seconds after which an operation that goes on for so long does not end at all."""


class Hunt(msgspec.Struct):
    """One hunt: `rule` is empty if nothing was found.

    seconds     until it was found, the start of its process included; not the shortening
    excused     how often the judges left something to Linux, and why
    smallest    the shortest list, in words; `story`: as the file that `shadowmmu fuzz --ops` runs
    shown       what that says on the engine with the bug: the list, and the way of the address
    """

    seed: int
    rule: str = ""
    operations: int = 0
    seconds: float = 0.0
    message: str = ""
    command: str = ""
    smallest: list[str] = []
    story: str = ""
    shown: str = ""
    excused: dict[str, int] = {}


class _Found(msgspec.Struct):
    message: str
    reproduce: str


class _Report(msgspec.Struct):
    """What a hunt takes of the copy's report, `shadowmmu fuzz --json`."""

    operations: int
    failure: _Found | None
    excused: dict[str, int]


class Verdict(msgspec.Struct):
    """What came of a bug. `reason`: why it could not be put in; `unseen`: why it cannot be found, and so is not hunted."""

    id: str
    title: str
    hunts: list[Hunt] = []
    reason: str = ""
    unseen: str = ""

    @property
    def finds(self) -> list[Hunt]:
        return [hunt for hunt in self.hunts if hunt.rule]

    @property
    def killed(self) -> bool:
        """As many of the hunts as must find it have, or all of a shorter row."""
        return bool(self.hunts) and len(self.finds) >= min(ENOUGH, len(self.hunts))


def judges_hash() -> str:
    """Of the files that judge, write and run the random operations."""
    rooms = ("check/audit", "check/oracle", "check/fuzz", "hardware")
    files = sorted(path for room in rooms for end in ("py", "pxd") for path in (checkout() / "src" / "shadowmmu" / room).rglob(f"*.{end}"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def rule_of(message: str) -> str:
    """The rule that a violation names: an invariant, what the kernel warns of, a crash, or the oracle's."""
    named = re.search(r"\b(?:audit: )?(I\d+|WARN):", message)
    if named:
        return named[1]
    if "the engine crashed" in message:
        return "crash"
    return "WARN" if "holds impossible" in message else "oracle"


def hunt_bug(bug: Bug, seconds: int, hunts: int = HUNTS, runs: int = 200) -> Verdict:
    """Build a copy with the bug and hunt it; raises BadInput if it cannot be put in."""
    if bug.unseen:
        return Verdict(bug.id, bug.title, unseen=bug.unseen)
    with tempfile.TemporaryDirectory(prefix="shadowmmu-bug-") as place:
        copy_with(bug, Path(place))
        verdict = Verdict(bug.id, bug.title)
        for number in range(hunts):
            verdict.hunts.append(_hunt(bug, Path(place), number, seconds, runs if not verdict.finds else 0))
        return verdict


def _hunt(bug: Bug, place: Path, number: int, seconds: int, runs: int) -> Hunt:
    hunt = Hunt(int.from_bytes(hashlib.sha256(f"{bug.id} {number}".encode()).digest()[:4], "little"))
    found, start = place / "found.ops", time.monotonic()
    where = ["--seed", str(hunt.seed), "--kernel", ANY, "--roots", bug.roots or ANY, "--modes", ",".join(bug.modes or MODES)]
    long = ["--operations", str(OPERATIONS), "--seconds", str(seconds)]
    said = _fuzz(place, [*where, *long, "--json", "--shrink", "0", "--save", str(found)], seconds + GRACE)
    hunt.seconds = round(time.monotonic() - start, 1)
    if said is None:
        hunt.rule, hunt.message = "hang", "an operation does not end"
        return hunt
    report = _report(said)
    hunt.operations, hunt.excused = report.operations, report.excused
    if report.failure is not None:
        hunt.message, hunt.command = report.failure.message, report.failure.reproduce
        hunt.rule = rule_of(hunt.message)
        if runs:
            _shorten(hunt, place, found, runs)
    return hunt


def _report(said: str) -> _Report:
    try:
        return msgspec.json.decode(said, type=_Report)
    except msgspec.MsgspecError as error:
        raise BadInput(f"the copy of the engine prints something else than its report: {error}") from None


def _shorten(hunt: Hunt, place: Path, found: Path, runs: int) -> None:
    shortest = place / "shortest.ops"
    hunt.shown = _fuzz(place, ["--ops", str(found), "--shrink", str(runs), "--save", str(shortest)], 10 * GRACE) or ""
    if hunt.shown and shortest.exists():
        hunt.story = shortest.read_text()
        hunt.smallest = [line.partition("# ")[2] for line in hunt.story.splitlines() if line.startswith("vcpu ")]


def _fuzz(place: Path, arguments: list[str], patience: float) -> str | None:
    """What `shadowmmu fuzz` of the copy says; None if it does not end. Raises BadInput for what it says instead."""
    alone = os.environ | {"PYTHONPATH": str(place / "src"), "COLUMNS": "140", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "shadowmmu", "fuzz", *arguments]
    with signals_raise():
        child = subprocess.Popen(
            command,
            cwd=place,
            env=alone,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            said, trouble = child.communicate(timeout=patience)
        except BaseException as end:  # Ctrl-C does not reach it there
            os.killpg(child.pid, signal.SIGKILL)  # and the process that does the operations
            child.communicate()
            if isinstance(end, subprocess.TimeoutExpired):
                return None
            raise
    if child.returncode not in (0, 1):
        raise BadInput(f"the copy of the engine does not run: {trouble.strip().splitlines()[-1] if trouble.strip() else child.returncode}")
    return said
