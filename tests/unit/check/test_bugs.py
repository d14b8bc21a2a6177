# SPDX-License-Identifier: GPL-2.0-only
"""The museum's bugs fit the engine as it is, and what does not fit is refused by name; a verdict is what the hunts make it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from difflib import unified_diff
from pathlib import Path

import pytest

from shadowmmu import ROOT_DESIGNS
from shadowmmu.check.bugs import copy, hunt
from shadowmmu.check.bugs.bug import Bug, Edit, apply, read_bug
from shadowmmu.check.bugs.copy import checkout
from shadowmmu.check.bugs.hunt import Hunt, Verdict, rule_of
from shadowmmu.check.bugs.table import HEAD, with_rows
from shadowmmu.cli.main import call
from shadowmmu.errors import BadInput

MUSEUM = sorted((checkout() / "bugs").glob("*.toml"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The engine's sources alone."""
    engine = Path("src", "shadowmmu", "engine")
    shutil.copytree(checkout() / engine, tmp_path / engine, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def test_every_bug_of_the_museum_fits_the_engine(tree: Path) -> None:
    """Each is put in by itself, and changes something."""
    assert len(MUSEUM) > 30
    clean = {path: path.read_text() for path in tree.rglob("*.p*") if path.suffix in (".py", ".pxd")}
    for path in MUSEUM:
        bug = read_bug(path)
        assert bug.id == path.stem and bug.title and bug.breaks and bug.roots in ("", *ROOT_DESIGNS)
        apply(bug, tree)
        changed = {name for name, text in clean.items() if name.read_text() != text}
        assert changed, bug.id
        for name in changed:
            name.write_text(clean[name])


@pytest.mark.parametrize(
    ("function", "old", "said"),
    [
        ("no_such_function", "x", "no function no_such_function"),
        ("commit_zap", "not in it", "0 times"),
        ("commit_zap", "invalid", "not once"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_by_name(tree: Path, function: str, old: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        apply(Bug(title="", breaks="", edit=[Edit(function, old, "")], id="mine"), tree)


def test_a_diff_from_elsewhere(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.diff"
    path = "src/shadowmmu/engine/entries/mmio.py"
    before = (tree / path).read_text().splitlines(keepends=True)
    file.write_text("".join(unified_diff(before, ["# planted\n", *before], f"a/{path}", f"b/{path}")))
    apply(read_bug(file), tree)
    assert (tree / path).read_text().startswith("# planted\n")
    with pytest.raises(BadInput, match="does not apply"):
        apply(Bug(title="", breaks="", edit=[], id="twice", diff=f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-x\n+y\n"), tree)


@pytest.mark.parametrize("path", ["setup.py", "docs/new.md", "src/other.py", "pyproject.toml", "src/shadowmmu_x/y.py", "tests/\tx"])
def test_a_diff_changes_nothing_but_the_package(tree: Path, path: str) -> None:
    ours = "src/shadowmmu/engine/new.py"
    diff = "".join("".join(unified_diff([], ["x\n"], "/dev/null", f"b/{name}")) for name in (ours, path))
    with pytest.raises(BadInput, match="give one that changes nothing but src/shadowmmu/" if "\t" not in path else "mine: the diff"):
        apply(Bug(title="", breaks="", edit=[], id="mine", diff=diff), tree)
    assert not (tree / path).exists() and not (tree / ours).exists()


HOSTILE = {
    "a pipe": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to all there is": lambda path: path.symlink_to("/"),
    "a link to its folder": lambda path: path.symlink_to("."),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a folder": Path.mkdir,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("built", [False, True])
def test_what_is_no_source_stays_where_it_is(
    what: str, built: bool, tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout from elsewhere may hold anything; a build must not."""
    clean, copied = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("copied")
    for name in ("setup.py", "pyproject.toml", "README.md", "build/c/x.c"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    shutil.copytree(tree, clean, dirs_exist_ok=True)
    monkeypatch.setattr(copy, "checkout", lambda: clean)
    monkeypatch.setattr(copy, "_build", lambda *_: None)
    (tree / "src/shadowmmu/engine/entries/mmio.py").write_text("def mine(): pass\n")
    for place in ("src", "src/shadowmmu", "src/shadowmmu/engine"):
        monkeypatch.chdir(tree / place)  # the path of a socket is short
        HOSTILE[what](Path("zz.py"))
    if not built:
        shutil.rmtree(tree / "build")
    copy.copy_of(tree, copied)
    assert (copied / "src/shadowmmu/engine/entries/mmio.py").read_text() == "def mine(): pass\n"
    assert not any(path.is_file() or path.is_symlink() for path in copied.rglob("zz.py"))


@pytest.mark.parametrize(("place", "size", "said"), [("src/shadowmmu/x.py", 1 << 34, "no more than"), ("build/c/x", 1 << 40, "more than")])
def test_a_checkout_has_a_size(
    place: str, size: int, said: str, tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "TREE", 1 << 35)
    clean, copied = tmp_path_factory.mktemp("clean"), tmp_path_factory.mktemp("copied")
    shutil.copytree(tree, clean, dirs_exist_ok=True)
    monkeypatch.setattr(copy, "checkout", lambda: clean)
    for path in (clean, tree):
        for name in ("setup.py", "pyproject.toml", "README.md", "build/c/x"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text("")
    if place.startswith("src"):
        shutil.rmtree(tree / "build")
    with (tree / place).open("wb") as file:
        file.truncate(size)
    with pytest.raises(BadInput, match=said):
        copy.copy_of(tree, copied)


@pytest.mark.parametrize("said", ["hello", "", '{"operations": 1}', '{"operations": "x", "failure": null}', "[" * 100_000])
def test_a_copy_that_prints_no_report_cannot_be_hunted(said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hunt, "copy_with", lambda *_: None)
    monkeypatch.setattr(hunt, "_fuzz", lambda *_: said)
    with pytest.raises(BadInput, match="prints something else than its report"):
        hunt.hunt_bug(Bug(title="", breaks="", edit=[], id="mine"), 1)


def test_what_the_judges_of_a_hunt_excuse_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = '{"operations": 9, "failure": null, "excused": {"host fault": 2}}'
    monkeypatch.setattr(hunt, "copy_with", lambda *_: None)
    monkeypatch.setattr(hunt, "_fuzz", lambda *_: said)
    assert call(["bugs", "cr3-no-sync", "--hunts", "3"]) == 1
    assert "not judged: host fault 6" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_hunt_that_is_ended_takes_its_processes_along(number: int, tmp_path: Path) -> None:
    """They are in a session of their own, where no terminal's signals come."""
    (tmp_path / "src").mkdir()
    script = (
        "import signal, sys; from pathlib import Path; from shadowmmu.check.bugs import hunt\n"
        "signal.signal(int(sys.argv[3]), signal.SIG_DFL)\n"  # which nohup takes away
        "sys.executable = sys.argv[1]; hunt._fuzz(Path(sys.argv[2]), [], 60)"
    )
    sleeper = tmp_path / "sleeper"
    sleeper.write_text('#!/bin/sh\necho $$ > "$(dirname "$0")/new"; mv "$(dirname "$0")/new" "$(dirname "$0")/pid"; exec sleep 60\n')
    sleeper.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", script, sleeper, tmp_path, str(int(number))]) as parent:
        while not (tmp_path / "pid").exists():
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(number)
        assert parent.wait() == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


WHOLE = 'title = "x"\nbreaks = ""\nedit = []\n'
BROKEN = (
    "nothing", 'title = "x"\n', "title = [\n", WHOLE + "more = 1\n", WHOLE + 'roots = "bare"\n', WHOLE + 'modes = ["3-level"]\n',
    "a = " + "[" * 100_000, "a = 1" + "0" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN, ids=[text[:40] for text in BROKEN])
def test_a_file_that_is_no_bug_is_refused(tmp_path: Path, text: str) -> None:
    for name in ("bug.toml", "bug.diff"):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=name):
            read_bug(tmp_path / name)


def test_a_diff_needs_git(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(BadInput, match="apt install git"):
        apply(Bug(title="", breaks="", edit=[], id="mine", diff="@@ "), tree)


def test_a_bug_that_cannot_be_put_in_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(WHOLE.replace("edit = []", '[[edit]]\nfunction = "nowhere"\nold = "a"\nnew = "b"'))
    assert call(["bugs", str(tmp_path / "mine.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 1 cannot be put in, the first is mine: the engine has no function nowhere" in line


def test_four_of_five_hunts_must_find_it() -> None:
    verdict = Verdict("x", "", [Hunt(seed, "I11" if seed else "") for seed in range(5)])
    assert verdict.killed
    verdict.hunts[1].rule = ""
    assert not verdict.killed
    assert not Verdict("x", "", reason="does not fit").killed


def test_one_that_cannot_be_seen_is_not_hunted() -> None:
    verdict = hunt.hunt_bug(Bug(title="", breaks="", edit=[], id="mine", unseen="nothing comes of it"), 1)
    assert verdict.unseen and not verdict.hunts and not verdict.killed
    assert any(read_bug(path).unseen for path in MUSEUM)


def test_hunts_are_put_into_the_table() -> None:
    page = f"# x\n\n0 bugs: \n\n{HEAD}| gone | 1 of 1 | I1 | 5 |\n| old | 1 of 1 | I2 | 1,000 |\n| two | 0 of 1 | - | 9 |\n\nbehind\n"
    found = Verdict("two", "", [Hunt(1, "I9", 30), Hunt(2, "I8", 10), Hunt(3)])
    text = with_rows(page, [found, Verdict("never", "", unseen="why")], {"old", "two", "never", "new"})
    table = "| never | cannot be seen | - | - |\n| old | 1 of 1 | I2 | 1,000 |\n| two | 2 of 3 | I8, I9 | 20 |\n"
    summary = "4 bugs: 2 found, half of them within 510 operations; 0 missed; 1 cannot be seen; 1 not hunted yet."
    assert text == f"# x\n\n{summary}\n\n{HEAD}{table}\nbehind\n"
    with pytest.raises(ValueError, match="no table"):
        with_rows("# x\n", [], set())


def test_the_rule_is_read_from_the_message() -> None:
    assert rule_of("operation 3, access: audit: I8: page (and 2 more)") == "I8"
    assert rule_of("operation 3, access: vcpu 1: I11: enters the guest with") == "I11"
    assert rule_of("operation 3, access: the engine met what it holds impossible: x") == "WARN"
    assert rule_of("operation 3, access: vcpu 0: user read of 0x1 went to host 0x2") == "oracle"
