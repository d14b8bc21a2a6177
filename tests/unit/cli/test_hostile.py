"""The command line against its surroundings: devices for files, full disks, closed pipes, Ctrl-C. One line, the right code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "shadowmmu"]
QUICK = ["run", "nonpaging", "--audit", "off"]


def ends(arguments: list[str], stdout: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose output goes to the file `stdout`."""
    with Path(stdout).open("w") as out:
        done = subprocess.run([*COMMAND, *arguments], stdout=out, stderr=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments", [QUICK, [*QUICK, "--json"], ["show", "nonpaging", "--at", "100"], ["replay", "shadow/p32_basic", "--text"]]
)
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    code, errors = ends(arguments, "/dev/full")
    assert code == 2 and errors.count("\n") == 1
    assert errors.startswith("shadowmmu: the output: No space left on device; ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*QUICK, "--trace", "/dev/full"], "No space left on device"),
        (["run", "/dev/zero"], "guest /dev/zero is no regular file; name a TOML file or a multiboot image"),
        (["run", "a" * 5000], "no guest 'aaaa"),
        (["run", "a\\b"], "no guest"),
    ],
)
def test_what_is_no_file_is_one_line(arguments: list[str], said: str) -> None:
    code, errors = ends(arguments, "/dev/null")
    assert code == 2 and errors.count("\n") == 1 and said in errors


@pytest.mark.parametrize("arguments", [QUICK, ["show", "nonpaging", "--at", "900"], ["show", "nonpaging", "--at", "900", "--json"]])
def test_a_reader_that_leaves_is_no_violation(arguments: list[str]) -> None:
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 0


def test_output_may_be_closed() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "show", "nonpaging", "--at", "100", "--json"], stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_run_between_two_exits(tmp_path: Path) -> None:
    """Wherever it comes, inside the callbacks of the CPU too, where an exception would be lost."""
    (tmp_path / "ports.toml").write_text('name = "ports"\nimage = "ports.img"\nformat = "flat"\n')
    (tmp_path / "ports.img").write_bytes(bytes.fromhex("e680ebfc"))  # again: out 80h, al; jmp again
    command = [*COMMAND, "run", str(tmp_path / "ports.toml"), "--audit", "off"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline().startswith("ports:")
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (130, "shadowmmu: interrupted\n")
