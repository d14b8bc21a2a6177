# SPDX-License-Identifier: GPL-2.0-only
"""A hunt: random guests are captured, replayed on the kernel's roots and on special ones, and judged; what is found is cut shorter.

What a replay does not explain is ours to mend; what oracle or audit find in a capture that replays is the kernel's, or ours too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from kit import run as machine
from kit.decode import decode
from kit.guest import Guest
from kit.random_guest import OPERATIONS, RandomGuest
from kit.run import Host
from shadowmmu.captures.kit import read_capture
from shadowmmu.captures.load import SUFFIX, save
from shadowmmu.check.replay.driver import Replay
from shadowmmu.errors import BadInput

SET = "hunt"
"""Name of the folders of its guests, runs and captures."""
STEPS = 16
"""Lengths tried at once, to cut a guest shorter."""
Say = Callable[[str], None]


class Finding(NamedTuple):
    """What came of one guest."""

    guest: str
    roots: str
    """On which it showed."""
    what: str

    def __str__(self) -> str:
        return f"{self.guest} on {self.roots} roots: {self.what}"


class Hunt:
    """On one host, in one folder."""

    def __init__(self, place: Path, host: Host, say: Say) -> None:
        self.place, self.host, self.say = place, host, say

    def batch(self, guests: Iterable[Guest]) -> list[Finding]:
        """Capture them in one boot, and look at each; those with findings are kept as packed captures."""
        made = list(guests)
        captured = self._capture(made)
        return [found for guest in made for found in self._look(guest, captured)]

    def _capture(self, guests: list[Guest]) -> Path:
        folder, raw, captured = (self.place / kind / SET for kind in ("guests", "raw", "captures"))
        for old in (folder, captured):
            shutil.rmtree(old, ignore_errors=True)
        for guest in guests:
            guest.save(folder)
        scripts = [folder / f"{guest.name}.kvs" for guest in guests]
        for failure in machine.run(self.place, scripts, self.host, raw, lambda _line: None, {}):
            self.say(f"not to its end: {failure}")
        (raw / "roots.txt").write_text("legacy\n")
        decode(raw, captured)
        return captured

    def _look(self, guest: Guest, captured: Path) -> list[Finding]:
        if not (captured / f"{guest.name}.jsonl.gz").exists():
            return []
        try:
            capture = read_capture(captured, guest.name)
        except BadInput as error:
            return [Finding(guest.name, "any", str(error))]
        found = []
        for roots in ("legacy", "special"):
            result = Replay(capture, roots, judged=True).run()
            if not result.ok:
                told = result.divergence.what if result.divergence else ", ".join(result.bugs)
                found.append(Finding(guest.name, roots, told))
        if found:
            save(capture, self.place / SET / f"{guest.name}{SUFFIX}")
        return found

    def shorten(self, guest: Guest) -> Finding | None:
        """The shortest beginning of a random guest that still shows something: in two boots. None: it has none."""
        if not isinstance(guest, RandomGuest):
            return None
        first = self._shortest(guest, range(OPERATIONS // STEPS, OPERATIONS + 1, OPERATIONS // STEPS))
        if first is None:
            return None
        length = int(first.guest.rpartition("_")[2])
        return self._shortest(guest, range(length - OPERATIONS // STEPS + 1, length)) or first

    def _shortest(self, guest: RandomGuest, lengths: Iterable[int]) -> Finding | None:
        cut = [guest.again(f"{guest.name}_{length}", length) for length in lengths]
        found = {finding.guest: finding for finding in reversed(self.batch(cut))}
        return next((found[one.name] for one in cut if one.name in found), None)
