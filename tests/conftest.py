# SPDX-License-Identifier: GPL-2.0-only
"""How properties are tried: by the same examples each time, and none fails for being slow. What CI tells at its end: how long each
tier took, beside the minutes it has."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from hypothesis import HealthCheck, settings

settings.register_profile("fixed", deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
settings.load_profile("fixed")

MINUTES = {"unit": 3.0, "rules": 0.5, "typing": 0.5, "conformance": 2.0, "model": 2.0, "guests": 1.5, "docs": 2.0}
"""Minutes on two cores that a tier should not exceed; all of CI, the build included, has 15. Told, not asserted."""
CORES = 2


def pytest_terminal_summary(terminalreporter: Any) -> None:
    seconds: defaultdict[str, float] = defaultdict(float)
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            tier = getattr(report, "nodeid", "").removeprefix("tests/").partition("/")[0]
            if tier in MINUTES and hasattr(report, "duration"):
                seconds[tier] += report.duration
                tests[tier] += report.when == "call"
    if sum(tests.values()) < 100:
        return
    terminalreporter.write_sep("-", f"minutes of {CORES} cores, by tier")
    for tier, minutes in MINUTES.items():
        if tests[tier]:
            took = seconds[tier] / 60 / CORES
            over = "  more than it has" if took > minutes else ""
            terminalreporter.write_line(f"{tier:12} {tests[tier]:5,} tests {took:5.1f} of {minutes:.1f}{over}")
