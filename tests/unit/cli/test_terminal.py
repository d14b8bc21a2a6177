# SPDX-License-Identifier: GPL-2.0-only
"""Sequences for terminals, planted in each kind of input, are shown and never sent: by each verb, to a pipe and to a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from planted import PLANTED, RAW, planted_capture, planted_guest

from shadowmmu.cli.main import call

COMMAND = [sys.executable, "-m", "shadowmmu"]


def to_a_pipe(arguments: list[str]) -> tuple[int, bytes]:
    """Exit code, and all that was said; within this process, which is quicker than another."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        code = call(arguments)
    return code, said.getvalue().encode()


def to_a_terminal(arguments: list[str]) -> tuple[int, bytes]:
    """Exit code, and all that a terminal got."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # the other side is closed
            pass
        os.close(ours)
    return running.returncode, said


def nothing_raw(arguments: list[str], code: int, terminal: bool) -> None:
    for run in (to_a_pipe, to_a_terminal)[: 1 + terminal]:
        ended, said = run(arguments)
        assert ended == code, said
        assert b"Traceback" not in said and b"internal error" not in said
        assert not [raw for raw in RAW if raw in said]
        assert b"\\x1b" in said or b"\\u001b" in said, "it is shown"


@pytest.mark.parametrize(("verb", "code"), [("run", 1), ("run --json", 1), ("compare", 0), ("show", 0), ("run --max-exits 1", 0)])
def test_guests(verb: str, code: int, tmp_path: Path) -> None:
    name, *options = verb.split()
    nothing_raw([name, str(planted_guest(tmp_path, 0x11)), *options], code, terminal=True)


@pytest.mark.parametrize(("verb", "code"), [("replay", 1), ("replay --json", 1), ("replay --text", 0), ("replay --at 20", 0), ("rerun", 1)])
def test_captures(verb: str, code: int, tmp_path: Path) -> None:
    name, *options = verb.split()
    nothing_raw([name, str(planted_capture(tmp_path)), *options], code, terminal=True)


@pytest.mark.parametrize(
    "arguments",
    [
        [PLANTED], ["run", PLANTED], ["run", "--roots", PLANTED], ["run", f"--{PLANTED}"], ["run", "pae", "--trace", f"/none/{PLANTED}"],
        ["show", "--address", PLANTED], ["fuzz", "--modes", PLANTED], ["replay", PLANTED], ["replay", "--kit", PLANTED], ["rerun", PLANTED],
        ["compare", "pae", PLANTED],
    ],
)  # fmt: skip
def test_arguments(arguments: list[str]) -> None:
    nothing_raw(arguments, 2, terminal=arguments[0] == PLANTED)


@pytest.mark.parametrize("content", ["name = 1\x1b]0;x\x07", '"\\u001b]0;x\\u0007" = 1', 'name="x"\nimage="x"\nmode="\\u001b]0;\\u0007"'])
def test_broken_descriptions(content: str, tmp_path: Path) -> None:
    path = tmp_path / f"{PLANTED.replace('/', '_')}.toml"
    path.write_text(content)
    nothing_raw(["run", str(path)], 2, terminal=False)
