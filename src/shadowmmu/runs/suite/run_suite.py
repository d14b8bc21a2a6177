# SPDX-License-Identifier: GPL-2.0-only
"""The images of a suite on one root design, each in a machine of its own, and why those did not pass that did not.

A sub-test that fails is tried again with the engine out of the way: on nested paging, where the CPU walks the guest's own
tables and nothing is shadowed. If it fails there in the same way, it is no matter of the shadow MMU. An image that nests its
own guests' paging is not tried again.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from shadowmmu.border.files import read_file
from shadowmmu.border.limits import SUITE_LOG
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.errors import BadInput
from shadowmmu.machine.devices.clock import TICKS_PER_SECOND
from shadowmmu.machine.result import Reason
from shadowmmu.runs.guest_run import Audit, GuestRun, RunReport
from shadowmmu.runs.suite.entries import Entry, Suite, guest_of, why_skipped
from shadowmmu.runs.suite.output import SKIPPED, SubTest, Verdict, failed_beside, same_failures, sub_tests

Outcome = Literal["PASS", "FAIL", "SKIP"]


class Image(msgspec.Struct, kw_only=True):
    """One entry of the suite and how it went. `reason`: why it did not pass."""

    name: str
    outcome: Outcome
    reason: str = ""
    tests: list[SubTest] = []
    elsewhere: list[str] = []
    """Sub-tests that fail in the same way without shadow paging."""
    beside: dict[str, Verdict | None] | None = None
    """Sub-tests that failed -> their verdicts in another run, as on KVM; None: there is no log of such a run."""
    exits: int = 0
    milliseconds: float = 0.0
    """Of virtual time."""
    violations: list[str] = []

    def known_of(self, name: str) -> list[str]:
        """What is known of a sub-test that failed."""
        known = ["fails without shadow paging, too"] if name in self.elsewhere else []
        return known if self.beside is None else [*known, f"{self.beside.get(name) or 'not there'} beside"]

    def count(self, verdict: str) -> int:
        return sum(test.verdict == verdict for test in self.tests)


class SuiteReport(msgspec.Struct, kw_only=True):
    directory: str
    roots: str
    audit: Audit
    images: list[Image]

    @property
    def as_expected(self) -> bool:
        """No image has failed but where it would fail without shadow paging, too."""
        return all(image.outcome != "FAIL" or _is_no_matter_of_ours(image) for image in self.images)


def _is_no_matter_of_ours(image: Image) -> bool:
    failed = sum(test.failed for test in image.tests)
    return not image.violations and 0 < failed == len(image.elsewhere)


def run_suite(
    suite: Suite,
    *,
    roots: str = "special",
    kernel: str = DEFAULT_KERNEL,
    audit: Audit = "off",
    only: Iterable[str] = (),
    seconds: float | None = None,
    beside: Path | None = None,
    on_image: Callable[[Image], None] = lambda image: None,
) -> SuiteReport:
    """Run the entries named in `only`, or all.

    seconds  of virtual time for each, instead of the suite's own bound
    beside   directory of the suite's own logs of another run
    """
    wanted = set(only)
    unknown = wanted - {entry.name for entry in suite.entries}
    if unknown:
        raise BadInput(f"suite {suite.directory} has no {', '.join(sorted(unknown))}; names are in x86/unittests.cfg")
    report = SuiteReport(directory=str(suite.directory), roots=roots, audit=audit, images=[])
    for entry in suite.entries:
        if not wanted or entry.name in wanted:
            image = _ImageRun(suite, entry, roots, kernel, audit, seconds or entry.seconds).image()
            if beside is not None:
                image.beside = _beside(image, beside / f"{entry.name}.log")
            report.images.append(image)
            on_image(image)
            gc.collect()  # machines hold circles; the next one may want as much memory again
    return report


def _beside(image: Image, log: Path) -> dict[str, Verdict | None] | None:
    if not os.path.exists(log):  # which is False, too, for what can be no path at all
        return None
    text = read_file(log, SUITE_LOG, f"log {log}", "name a directory of the suite's logs")
    return failed_beside(image.tests, sub_tests(text.decode(errors="replace")))


class _ImageRun:
    def __init__(self, suite: Suite, entry: Entry, roots: str, kernel: str, audit: Audit, seconds: float) -> None:
        self._suite, self._entry, self._roots, self._kernel, self._audit = suite, entry, roots, kernel, audit
        self._ticks = int(seconds * TICKS_PER_SECOND)

    def image(self) -> Image:
        skipped = why_skipped(self._suite, self._entry)
        if skipped:
            return Image(name=self._entry.name, outcome="SKIP", reason=skipped)
        try:
            return self._image()
        except (BadInput, MemoryError) as error:  # one that cannot be loaded, or has no room here; those behind it can
            return Image(name=self._entry.name, outcome="FAIL", reason=str(error) or "there is not enough memory for it")

    def _image(self) -> Image:
        report, output, ticks = self._run(direct=False)
        tests = sub_tests(output)
        outcome, reason = _verdict(report)
        elsewhere: list[str] = []
        if any(test.failed for test in tests) and not report.violations and not self._is_nested_already:
            elsewhere = same_failures(tests, sub_tests(self._run(direct=True)[1]))
        return Image(
            name=self._entry.name,
            outcome=outcome,
            reason=reason,
            tests=tests,
            elsewhere=elsewhere,
            exits=report.exits,
            milliseconds=ticks * 1000 / TICKS_PER_SECOND,
            violations=report.violations,
        )

    @property
    def _is_nested_already(self) -> bool:
        """It is a hypervisor on nested paging, whose own nested tables are what is shadowed: there is no way around the engine."""
        return "npt" in guest_of(self._suite, self._entry).features

    def _run(self, *, direct: bool) -> tuple[RunReport, str, int]:
        """`direct`: with nested paging, so that nothing is shadowed but what the guest nests itself."""
        guest = guest_of(self._suite, self._entry)
        if direct:
            guest = msgspec.structs.replace(guest, features=tuple({*guest.features, "npt"}))
        run = GuestRun(guest, guest.name, roots=self._roots, kernel=self._kernel, audit="off" if direct else self._audit)
        report = run.run(self._ticks, max_ticks=self._ticks)  # an exit takes many ticks, so time is up first
        return report, run.machine.console.output, run.machine.clock.now


def _verdict(report: RunReport) -> tuple[Outcome, str]:
    """By how the image left, as the suite's own scripts do."""
    result = report.result
    if report.violations:
        return "FAIL", f"audit: {report.violations[0]}"
    if result is None:
        return "FAIL", report.broke
    if result.reason is Reason.PASSED:
        return "PASS", ""
    if result.code == SKIPPED:
        return "SKIP", "all its tests were skipped"
    if result.reason is Reason.FAILED:
        return "FAIL", f"exit code {result.code}"
    return "FAIL", f"{result.reason.value}: {result.detail}"
