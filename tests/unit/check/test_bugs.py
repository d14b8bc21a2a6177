# SPDX-License-Identifier: GPL-2.0-only
"""The museum's bugs fit the engine as it is, and what does not fit is refused by name; a verdict is what the hunts make it."""

import shutil
from difflib import unified_diff
from pathlib import Path

import pytest

from shadowmmu import ROOT_DESIGNS
from shadowmmu.check.bugs.bug import Bug, Edit, apply, read_bug
from shadowmmu.check.bugs.copy import checkout
from shadowmmu.check.bugs.hunt import Hunt, Verdict, rule_of
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
        assert bug.id == path.stem and bug.title and bug.breaks and bug.roots in ROOT_DESIGNS
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
        apply(Bug(title="", breaks="", edit=[], id="twice", diff="--- a/none\n+++ b/none\n@@ -1 +1 @@\n-x\n+y\n"), tree)


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


def test_the_rule_is_read_from_the_message() -> None:
    assert rule_of("operation 3, access: audit: I8: page (and 2 more)") == "I8"
    assert rule_of("operation 3, access: vcpu 1: I11: enters the guest with") == "I11"
    assert rule_of("operation 3, access: the engine met what it holds impossible: x") == "WARN"
    assert rule_of("operation 3, access: vcpu 0: user read of 0x1 went to host 0x2") == "oracle"
