# SPDX-License-Identifier: GPL-2.0-only
"""The command line against its surroundings: devices for files, full disks, closed pipes, Ctrl-C. One line, the right code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import printing

from shadowmmu.check.fuzz import Setup, write_story
from shadowmmu.cli.main import call

COMMAND = [sys.executable, "-m", "shadowmmu"]
QUICK = ["run", "nonpaging", "--audit", "off"]


def ends(arguments: list[str], stdout: str) -> tuple[int, str]:
    """Exit code and standard error of a command whose output goes to the file `stdout`."""
    with Path(stdout).open("w") as out:
        done = subprocess.run([*COMMAND, *arguments], stdout=out, stderr=subprocess.PIPE, text=True)
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


def failing(folder: Path) -> list[str]:
    """Runs a guest that prints much and then says that it failed."""
    (folder / "fails.img").write_bytes(printing(("many words " * 20 + "\n") * 400, 0x11))
    (folder / "fails.toml").write_text("name = 'fails'\nimage = 'fails.img'\nformat = 'flat'\nload = 65536\nstart = 'protected'\n")
    return ["run", str(folder / "fails.toml")]


@pytest.mark.parametrize("arguments", [QUICK, ["show", "nonpaging", "--at", "900"], ["show", "nonpaging", "--at", "900", "--json"]])
@pytest.mark.parametrize("reader", ["true", "head -c 1"])
def test_a_reader_that_leaves_is_no_violation(arguments: list[str], reader: str) -> None:
    assert through(reader, arguments) == (0, "")


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("reader", ["true", "head -c 1"])
def test_a_reader_that_leaves_does_not_hide_a_failure(options: list[str], reader: str, tmp_path: Path) -> None:
    assert through(reader, [*failing(tmp_path), *options]) == (1, "")


def through(reader: str, arguments: list[str]) -> tuple[int, str]:
    """Exit code of the command, not of its reader, and standard error."""
    script = f'("$@"; echo $? >&3) 3>&2 2>"$0" | {reader} >/dev/null'
    with tempfile.NamedTemporaryFile("r") as errors:
        done = subprocess.run(["sh", "-c", script, errors.name, *COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
        return int(done.stderr), errors.read()


def test_a_trace_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A reader that has left, a pipe that nobody reads, a full disk; and a file is kept if there is no run."""
    ours, theirs = os.pipe()
    os.close(ours)
    os.mkfifo(tmp_path / "pipe")
    for trace, said in (
        (f"/dev/fd/{theirs}", "Broken pipe"),
        (tmp_path / "pipe", "nobody reads this pipe"),
        ("/dev/full", "No space left"),
    ):
        done = subprocess.run([*COMMAND, *QUICK, "--trace", str(trace)], capture_output=True, text=True, pass_fds=[theirs])
        assert done.returncode == 2 and done.stderr.startswith(f"shadowmmu: cannot write {trace}: {said}") and done.stderr.count("\n") == 1
    os.close(theirs)
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "none.toml").write_text("name = 'none'\nimage = 'none.img'\n")
    assert ends(["run", str(tmp_path / "none.toml"), "--trace", str(tmp_path / "kept")], "/dev/null")[0] == 2
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_trace_whose_reader_takes_nothing_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowmmu.runs.event_log.PATIENCE", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        assert call([*QUICK, "--trace", str(pipe)]) == 2
    os.close(reader)
    assert errors.getvalue().startswith(f"shadowmmu: cannot write {pipe}: who reads it has taken nothing for ")
    assert errors.getvalue().count("\n") == 1


def test_a_slow_reader_of_a_trace_gets_all(tmp_path: Path) -> None:
    pipe, file, read = tmp_path / "pipe", tmp_path / "file", tmp_path / "read"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'exec < "$0" > "$1"; sleep 1; cat', pipe, read]):
        number = os.open(pipe, os.O_WRONLY)  # when the reader has opened it
        code = subprocess.run([*COMMAND, *QUICK, "--trace", pipe], capture_output=True).returncode
        os.close(number)
    assert code == subprocess.run([*COMMAND, *QUICK, "--trace", file], capture_output=True).returncode == 0
    assert read.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("ascii", [*QUICK, "--max-exits", "100"]),
        ("ascii", ["show", "nonpaging", "--at", "100"]),
        ("latin-1", ["--help"]),
        ("cp437", ["guests", "--json"]),
        ("utf-8", ["guests"]),
    ],
)
def test_any_encoding_will_do(encoding: str, arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


def test_standard_error_may_be_closed_or_full() -> None:
    for to in ("2>&-", "2>/dev/full", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'"$@" {to}', "sh", *COMMAND, "run", "nobody"], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_cpu_without_room_is_told_before_it_begins(tmp_path: Path) -> None:
    """Unicorn would end the process."""
    command = failing(tmp_path)
    with (tmp_path / "fails.toml").open("a") as file:
        file.write("vcpus = 16\n")
    done = subprocess.run(["sh", "-c", 'ulimit -v 6000000; exec "$@"', "sh", *COMMAND, *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert "Unicorn reserves 1 GiB of address space for each; raise ulimit -v, or give the guest fewer vcpus" in done.stderr


@pytest.mark.parametrize("kilobytes", [150_000, 400_000, 800_000, 1_300_000])
def test_little_memory_is_one_line(kilobytes: int) -> None:
    command = ["sh", "-c", f'ulimit -v {kilobytes}; exec "$@"', "sh", *COMMAND, *QUICK]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


OPTIONS = {
    "seed": ["fuzz", "--operations", "5", "--seed"],
    "operations": ["fuzz", "--seconds", "1", "--operations"],
    "exits": ["run", "nonpaging", "--audit", "off", "--max-exits"],
    "exit": ["show", "nonpaging", "--at"],
    "address": ["show", "nonpaging", "--at", "3", "--address"],
    "event": ["replay", "shadow/p32_basic", "--at"],
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("number", ["-1", str(1 << 64), "1" + "0" * 30, "9" * 5000])
def test_a_number_that_is_too_large_or_small_is_one_line(option: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = call([*OPTIONS[option], number])
    assert code in (0, 2) and capsys.readouterr().err.count("\n") == (code == 2)


# --- Ctrl-C


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Whoever runs the tests in the background has SIGINT ignored, and so would the commands."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


INTERRUPTED_AT = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            os.kill(os.getpid(), signal.SIGINT)
where, sys.argv[:] = sys.argv[1], ["shadowmmu", *sys.argv[2:]]
sys.meta_path.insert(0, Finder())
runpy.run_module("shadowmmu", run_name="__main__")
"""


@pytest.mark.parametrize(
    "module", ["shadowmmu.cli.main", "cyclopts", "rich.console", "shadowmmu.cli.run", "shadowmmu.engine.face.vm", "unicorn"]
)
def test_ctrl_c_while_modules_are_loaded(module: str, hears_ctrl_c: None) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT, module, *QUICK], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "shadowmmu: interrupted\n")


INTERRUPTED_APART = """
import contextlib, os, signal
from shadowmmu.check.fuzz import apart, jobs
from shadowmmu.cli.main import main
def interrupted(*_, **__):
    with contextlib.suppress(FileExistsError):
        os.close(os.open("once", os.O_CREAT | os.O_EXCL))
        os.killpg(0, signal.SIGINT)
    while True:
        signal.pause()
jobs.fuzz = apart.replay = interrupted
raise SystemExit(main(arguments))
"""


@pytest.mark.parametrize("arguments", [["fuzz"], ["fuzz", "--jobs", "2"], ["fuzz", "--json"], ["fuzz", "--ops", "list"]])
def test_ctrl_c_comes_to_the_process_of_the_operations_too(arguments: list[str], tmp_path: Path, hears_ctrl_c: None) -> None:
    """As a terminal sends it, to all of the group: one line, and nobody goes on."""
    (tmp_path / "list").write_text(write_story(Setup(1), []))
    script = f"arguments = {arguments}{INTERRUPTED_APART}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, start_new_session=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "shadowmmu: interrupted\n")


def test_output_may_be_closed() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "show", "nonpaging", "--at", "100", "--json"], stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_run_between_two_exits(tmp_path: Path, hears_ctrl_c: None) -> None:
    """Wherever it comes, inside the callbacks of the CPU too, where an exception would be lost. The guest never ends."""
    (tmp_path / "ports.toml").write_text('name = "ports"\nimage = "ports.img"\nformat = "flat"\n')
    (tmp_path / "ports.img").write_bytes(bytes.fromhex("b00ae6e9 e680ebfc"))  # out 0E9h, 10; again: out 80h, al; jmp again
    command = [*COMMAND, "run", str(tmp_path / "ports.toml"), "--audit", "off"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline().startswith("ports:")
        assert running.stdout.readline() == "│ \n", "the guest runs now"
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate()
    assert (running.returncode, errors) == (130, "shadowmmu: interrupted\n")
