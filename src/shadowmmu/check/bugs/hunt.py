# SPDX-License-Identifier: GPL-2.0-only
"""Hunts of one bug: nothing is known of it but the copy of the engine that it is in.

The seeds come from the bug's name, the judges are those of a clean run (`judges_hash` is printed with both), and four of
five hunts must find it. A crash or a hang of the copy is a find: the clean engine does neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from shadowmmu.check.bugs.bug import Bug
from shadowmmu.check.bugs.copy import checkout, copy_with
from shadowmmu.check.fuzz import MODES

HUNTS, ENOUGH = 5, 4
OPERATIONS = 10_000_000
"""More than a hunt's seconds allow."""


class Hunt(msgspec.Struct):
    """One hunt: `rule` is empty if nothing was found. `operations` of a crash: those of the episodes before it."""

    seed: int
    rule: str = ""
    operations: int = 0
    seconds: float = 0.0
    message: str = ""
    command: str = ""
    smallest: list[str] = []


class Verdict(msgspec.Struct):
    """What came of a bug. `reason`: why it could not be put in."""

    id: str
    title: str
    hunts: list[Hunt] = []
    reason: str = ""

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
    """The rule that a violation names: an invariant, what the kernel warns of, or the oracle's."""
    named = re.search(r"\b(?:audit: )?(I\d+|WARN):", message)
    if named:
        return named[1]
    return "WARN" if "holds impossible" in message else "oracle"


def hunt_bug(bug: Bug, seconds: float, hunts: int = HUNTS, runs: int = 200) -> Verdict:
    """Build a copy with the bug and hunt it; raises BadInput if it cannot be put in."""
    with tempfile.TemporaryDirectory(prefix="shadowmmu-bug-") as place:
        copy_with(bug, Path(place))
        verdict = Verdict(bug.id, bug.title)
        for number in range(hunts):
            verdict.hunts.append(_hunt(bug, Path(place), number, seconds, runs if not verdict.finds else 0))
        return verdict


def _hunt(bug: Bug, place: Path, number: int, seconds: float, runs: int) -> Hunt:
    seed = int.from_bytes(hashlib.sha256(f"{bug.id} {number}".encode()).digest()[:4], "little")
    hunt, start = Hunt(seed), time.monotonic()
    modes = ",".join(bug.modes or MODES)
    command = [sys.executable, "-m", "shadowmmu.check.bugs.hunter", str(seed), str(OPERATIONS), bug.roots, modes, str(runs)]
    child = subprocess.Popen(
        command, cwd=place, env=os.environ | {"PYTHONPATH": str(place / "src")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        said, trouble = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        said, trouble = child.communicate()
        _read(hunt, said)
    else:
        _read(hunt, said)
        if child.returncode and not hunt.rule:
            last = trouble.strip().splitlines()
            hunt.message = f"the engine crashed: signal {-child.returncode}" if child.returncode < 0 else last[-1] if last else "it ended"
            hunt.rule = "crash"
    hunt.seconds = round(time.monotonic() - start, 1)
    return hunt


def _read(hunt: Hunt, said: str) -> None:
    for line in said.splitlines():
        told = json.loads(line)
        hunt.operations = told["operations"]
        if "found" in told:
            hunt.message, hunt.command, hunt.rule = told["found"], told["command"], rule_of(told["found"])
            hunt.smallest = told.get("list", [])
