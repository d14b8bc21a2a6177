# SPDX-License-Identifier: GPL-2.0-only
"""A hunt: random guests are captured, replayed on the kernel's roots and on special ones, and judged; what is found is cut shorter.

What a replay does not explain is ours to mend; what oracle or audit find in a capture that replays is the kernel's, or ours too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from kit import run as machine
from kit.by_seed import BySeed
from kit.decode import decode
from kit.draws import draw_for
from kit.record import Looked, Record
from kit.run import Host
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.kit import read_capture
from shadowmmu.captures.load import SUFFIX, save
from shadowmmu.captures.validate import undoable
from shadowmmu.check.compare.result import ReplayResult
from shadowmmu.check.replay.replay import Replay
from shadowmmu.errors import BadInput

SET = "hunt"
"""Name of the folders of its guests, runs and captures."""
STEPS = 16
"""Lengths tried at once, to cut a guest shorter."""
Say = Callable[[str], None]


class Hunt:
    """Of one set, on one host at a time, in one folder. `draws`: each guest's CPU lacks something of its own."""

    def __init__(self, place: Path, name: str, host: Host, say: Say, draws: bool = False) -> None:
        self.place, self.name, self.host, self.say, self.draws = place, name, host, say, draws
        self.record = Record(place / SET)

    def go_on(self, guests: Iterable[BySeed]) -> list[Looked]:
        """Look at more guests, and record them; what is found is cut shorter."""
        made = {guest.name: guest for guest in guests}
        looked = self.batch(made.values())
        self.record.add(looked)
        for row in looked:
            for finding in row.findings:
                self.say(finding)
            if row.findings:
                shorter = self.shorten(made[row.guest])
                self.say(f"shorter: {'; '.join(shorter.findings) if shorter else 'it is not'}")
        return looked

    def batch(self, guests: Iterable[BySeed]) -> list[Looked]:
        """Capture them in one boot, and look at each; those with findings are kept as packed captures."""
        made = list(guests)
        captured, failures = self._capture(made)
        return [self._look(guest, captured, failures) for guest in made]

    def _capture(self, guests: Iterable[BySeed]) -> tuple[Path, dict[str, str]]:
        """Where the captures are; why guests did not get to their end, by name."""
        folder, raw, captured = (self.place / kind / SET for kind in ("guests", "raw", "captures"))
        for old in (folder, captured):
            shutil.rmtree(old, ignore_errors=True)
        for guest in guests:
            if self.draws:
                draw_for(guest)
            guest.save(folder)
        scripts = [folder / f"{guest.name}.kvs" for guest in guests]
        failures = machine.run(self.place, scripts, self.host, raw, lambda _line: None, {})
        for failure in failures:
            self.say(f"not to its end: {failure}")
        (raw / "roots.txt").write_text("legacy\n")
        decode(raw, captured)
        return captured, dict(failure.split(": ", 1) for failure in failures)

    def _look(self, guest: BySeed, captured: Path, failures: dict[str, str]) -> Looked:
        looked = Looked(self.name, f"{self.host.cpu} {self.host.arguments}", guest.name, guest.seed, end=failures.get(guest.name, ""))
        if not (captured / f"{guest.name}.jsonl.gz").exists():
            return looked
        try:
            capture = read_capture(captured, guest.name)
            with undoable(capture.name):
                legacy, special = (Replay(capture, roots, judged=True).run() for roots in ("legacy", "special"))
        except BadInput as error:
            return looked.told(1, str(error), str(error), "")
        looked = looked.told(len(capture.events), _verdict(legacy), _verdict(special), special.until)
        if looked.findings:
            self._keep(capture)
        return looked

    def _keep(self, capture: Capture) -> None:
        save(capture, self.place / SET / f"{capture.guest.name}{SUFFIX}")

    def shorten(self, guest: BySeed) -> Looked | None:
        """The shortest beginning of a guest that still shows something: in two boots. None: it has none."""
        step = max(guest.length // STEPS, 1)
        first = self._shortest(guest, range(step, guest.length + 1, step))
        if first is None or step == 1:
            return first
        length = int(first.guest.rpartition("_")[2])
        return self._shortest(guest, range(length - step + 1, length)) or first

    def _shortest(self, guest: BySeed, lengths: Iterable[int]) -> Looked | None:
        looked = self.batch(guest.again(f"{guest.name}_{length}", length) for length in lengths)
        return next((row for row in looked if row.findings), None)


def _verdict(result: ReplayResult) -> str:
    if result.divergence:
        return result.divergence.what
    return ", ".join(result.bugs) or ("equal" if result.parted else "exact")
