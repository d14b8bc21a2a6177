# SPDX-License-Identifier: GPL-2.0-only
"""Every text of a report may hold any control character: a drawing shows each, and drops and sends none."""

import io
import unicodedata
from typing import Any

import msgspec

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.output import Output
from shadowmmu.machine.result import Reason
from shadowmmu.runs.guest_run import GuestRun, RunReport
from shadowmmu.view.draw_report import draw_report

CONTROLS = "".join(chr(code) for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) != "\n")


def drawn(report: RunReport) -> str:
    out = Output(10_000)
    out.file = io.StringIO()
    out.print(draw_report(report, 1.0))
    return out.file.getvalue()


def test_a_report_shows_what_would_steer() -> None:
    report = GuestRun(find_guest("nonpaging"), "nonpaging", audit="off").run(1)
    assert report.result is not None
    last = report.last_seen
    place: Any = msgspec.structs.replace(last.vcpus[0], symbol="SYMBOL" + CONTROLS)
    fault = type(last)([place], [[]], {"port": {"PORT" + CONTROLS: 1}})
    result = msgspec.structs.replace(report.result, reason=Reason.HALTED, detail="DETAIL" + CONTROLS)
    changes = {"result": result, "last_seen": fault, "broke": "BROKE" + CONTROLS, "reproduce": "AGAIN" + CONTROLS}
    text = drawn(msgspec.structs.replace(report, as_expected=False, violations=["VIOLATED" + CONTROLS], **changes))
    assert not set(text) & set(CONTROLS)
    for name in ("SYMBOL", "PORT", "DETAIL", "BROKE", "AGAIN", "VIOLATED"):
        assert name + CONTROLS.encode("unicode_escape").decode() in text
