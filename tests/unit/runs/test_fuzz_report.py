# SPDX-License-Identifier: GPL-2.0-only
"""A fuzz's report says how often the judges left something to Linux."""

from collections import Counter

from rich.console import Console

from shadowmmu.check.fuzz import Report, fuzz
from shadowmmu.check.fuzz.search import UNSEEN
from shadowmmu.runs.fuzz_report import fuzz_report
from shadowmmu.view.draw_fuzz import draw_fuzz


def test_what_is_not_judged_is_counted_and_printed() -> None:
    counts = Counter({"access host fault": 3, "race host fault": 2, "access no PDPTEs in L2": 1, "access read completed": 7})
    report = fuzz_report(Report(13, 1, counts))
    assert report.excused == {"host fault": 5, "no PDPTEs in L2": 1}
    with (console := Console(width=140)).capture() as shown:
        console.print(draw_fuzz(report, 1.0))
    assert "not judged: host fault 5, no PDPTEs in L2 1" in shown.get()


def test_what_the_audit_excuses_is_counted() -> None:
    """Of stores from outside the VM the MMU is not told: an audit finds the entries that only these explain."""
    assert fuzz_report(fuzz(operations=2_000)).excused[UNSEEN] > 0
    assert UNSEEN not in fuzz_report(fuzz(operations=2_000, audit_every=0)).excused


def test_all_of_a_plain_run_is_judged() -> None:
    report = fuzz_report(Report(7, 1, Counter({"access read completed": 7})))
    assert report.excused == {}
    with (console := Console(width=140)).capture() as shown:
        console.print(draw_fuzz(report, 1.0))
    assert "not judged" not in shown.get()
