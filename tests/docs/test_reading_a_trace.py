# SPDX-License-Identifier: GPL-2.0-only
"""docs/reading-a-trace.md: its commands print what stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shadowmmu.cli.main import call

ROOT = Path(__file__).parents[2]
STORIES = re.findall(r"^```text\n\$ shadowmmu ([^\n]*)\n(.*?)^```", (ROOT / "docs" / "reading-a-trace.md").read_text(), flags=re.M | re.S)


def test_there_are_three_stories() -> None:
    assert len(STORIES) == 3


@pytest.mark.parametrize(("command", "shown"), STORIES, ids=[command for command, _ in STORIES])
def test_a_command_prints_what_the_page_shows(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line in this order; between two of them others may stand where the page has an ellipsis."""
    monkeypatch.chdir(ROOT)
    assert call(command.split()) == 0
    printed = iter([line.rstrip() for line in capsys.readouterr().out.splitlines()])
    for line in shown.splitlines():
        assert line == "…" or line in printed, line
