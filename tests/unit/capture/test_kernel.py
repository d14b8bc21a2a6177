# SPDX-License-Identifier: GPL-2.0-only
"""The kit's edits of the kernel, without its source: where they bite, what they say, which packages they want."""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "capture"))

import capture as driver  # noqa: E402
from kit.errors import KitError  # noqa: E402
from kit.kernel import packages  # noqa: E402
from kit.kernel.modules import EDITS, MODULES, built, check_unedited  # noqa: E402
from kit.kernel.sections import differing, loaded  # noqa: E402
from kit.kernel.source import WHOLE, Edit, apply, edited  # noqa: E402

EVERY = [pytest.param(edit, id=f"{name}-{number}") for name, edits in EDITS.items() for number, edit in enumerate(edits)]
C = """struct page {
	int a;
};

static int one(int a,
		int b)
{
	if (a) {
		b = 1;
	}
	return b;
}

static int other(void)
{
	return one(1, 2);
}
"""


@pytest.mark.parametrize("edit", EVERY)
def test_an_edit_says_which_rule_asks_for_it(edit):
    rules = set(re.findall(r"^\| ([RH]\d+) \|", (ROOT / "docs/rules.md").read_text(), flags=re.MULTILINE))
    named = re.findall(r"\b[RH]\d+\b", edit.why)
    assert named and set(named) <= rules
    re.compile(edit.old)


def test_no_text_of_the_kernel_is_kept():
    """Patterns are names and short expressions."""
    for edits in EDITS.values():
        assert max(len(edit.old) for edit in edits) < 120


def test_the_kernel_side_has_the_engines_names():
    """special_roots.c can be read beside the engine: what both have is called the same, and holds the same rules."""
    kernel = (ROOT / "capture/kernel/special_roots.c").read_text()
    defined = set(re.findall(r"^static .*?\b(\w+)\(", kernel, flags=re.MULTILINE))
    engine = "".join(path.read_text() for path in (ROOT / "src/shadowmmu/engine").rglob("*.py"))
    ours = set(re.findall(r"^def (\w+)\(", engine, flags=re.MULTILINE))
    assert {
        "alloc_special_page",
        "use_pae_root",
        "free_special_page",
        "free_special_root",
        "load_special_root",
        "make_pdpte",
    } <= defined & ours
    told = set(re.findall(r"\b[RH]\d+\b", kernel)) | {rule for edit in EDITS["special"] for rule in re.findall(r"\b[RH]\d+\b", edit.why)}
    assert {f"R{n}" for n in range(1, 16)} <= told
    assert {f"H{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 16, 17, 18)} <= told


@pytest.mark.parametrize(
    ("name", "old", "new", "gives"),
    [
        ("one", r"b = 1;", "b = 2;", "b = 2;"),
        ("struct page", r"\tint a;\n", "\\g<0>\tint c;\n", "\tint a;\n\tint c;\n};"),
        ("other", "", "int before;\n\n", "int before;\n\nstatic int other"),
        ("other", WHOLE, "", "return b;\n}\n\n"),
    ],
)
def test_an_edit_bites_in_its_definition_alone(name, old, new, gives):
    after = edited(C, Edit("x.c", name, old, new, "R1"))
    assert gives in after and after != C


@pytest.mark.parametrize(
    ("name", "old", "says"),
    [
        ("two", "x", "x.c has 0 definitions of two, not one"),
        ("one", "return one", "x.c: one has 'return one' 0 times, not once"),
        ("one", "int", "x.c: one has 'int' 3 times, not once"),
    ],
)
def test_an_edit_that_does_not_find_its_place_is_refused(name, old, says):
    with pytest.raises(KitError, match=re.escape(says) + ".*the edits are for Debian's Linux 6.1"):
        edited(C, Edit("x.c", name, old, "y", "R1"))


def test_nothing_is_written_unless_every_edit_finds_its_place(tmp_path):
    file = tmp_path / "arch/x86/x.c"
    file.parent.mkdir(parents=True)
    file.write_text(C)
    good, bad = Edit("x.c", "one", "b = 1;", "b = 2;", "R1"), Edit("x.c", "two", "a", "b", "R1")
    with pytest.raises(KitError):
        apply((good, bad), tmp_path)
    assert file.read_text() == C
    assert apply((good,), tmp_path) == (1, 1)
    assert "b = 2;" in file.read_text()


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A folder with a kernel's package, and an archive that apt knows of."""
    (tmp_path / "linux-image-6.1.0-7-amd64_6.1.20-1_amd64.deb").write_bytes(b"")
    monkeypatch.setattr(packages, "program", lambda name, _package: name)
    monkeypatch.setattr(packages, "call", lambda words, *_: "6.1.20-1\n" if words[0] == "dpkg-deb" else "")
    return tmp_path


def test_packages_are_those_of_the_kernels_version(fetched):
    for name in ("linux-headers-6.1.0-7-amd64", "linux-headers-6.1.0-7-common", "linux-source-6.1"):
        (fetched / f"{name}_6.1.19-1_all.deb").write_bytes(b"")
        (fetched / f"{name}_6.1.20-1_all.deb").write_bytes(b"")
    (fetched / "linux-kbuild-6.1_6.1.30-1_amd64.deb").write_bytes(b"")
    found = packages.fetch(fetched, None)
    assert (found.kernel, found.version) == ("6.1.0-7-amd64", "6.1.20-1")
    assert {path.name.split("_")[1] for path in (found.headers, found.common, found.source)} == {"6.1.20-1"}
    assert found.kbuild.name == "linux-kbuild-6.1_6.1.30-1_amd64.deb"


def test_an_archive_that_has_moved_on_is_told_in_a_line(fetched, monkeypatch, capsys):
    monkeypatch.setattr(packages, "versions", lambda _name: ["6.1.30-2", "6.1.30-1"])
    folder = fetched / "6.1" / "packages"
    folder.mkdir(parents=True)
    fetched.joinpath("linux-image-6.1.0-7-amd64_6.1.20-1_amd64.deb").rename(folder / "linux-image-6.1.0-7-amd64_6.1.20-1_amd64.deb")
    assert driver.main(["modules", "--work", str(fetched)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the archive has moved on: the kernel needs linux-headers-6.1.0-7-amd64 6.1.20-1, and apt has 6.1.30-2, 6.1.30-1" in line
    assert "snapshot.debian.org" in line and "--cache" in line


def test_sources_are_fetched_for_the_kernel_that_is_edited(tmp_path, capsys):
    assert driver.main(["fetch", "--kernel", "7.3", "--source", "--work", str(tmp_path)]) == 2
    assert "Linux 7.3 is not built here, 6.1 is" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_things_are_named(tmp_path, capsys):
    for words, says in (
        (["modules"], "run capture.py fetch"),
        (["modules", "--edit", "legacy"], "special"),
    ):
        assert driver.main([*words, "--work", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
    with pytest.raises(KitError, match=r"run capture\.py modules --edit posted"):
        built(tmp_path, "posted")


@pytest.fixture
def objects(tmp_path):
    """Two objects of the same code, and a third of other code."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt install gcc")
    texts = {"one": "int f(void) { return 1; }", "same": "int f(void)\n{ return 1; }", "other": "int f(void) { return 2; }"}
    for name, text in texts.items():
        source = tmp_path / "unit.c"
        source.write_text(text)
        subprocess.run(["gcc", "-g", "-c", "-o", str(tmp_path / name), str(source)], check=True)
    return {name: (tmp_path / name).read_bytes() for name in texts}


def test_code_and_data_are_compared_by_section(objects):
    found = differing(objects["one"], objects["same"])
    assert found.sections == [] and found.compared > 10
    assert ".debug_info" not in loaded(objects["one"])
    assert differing(objects["one"], objects["other"]).sections == [".text"]


def test_a_rebuild_that_differs_is_refused(objects, tmp_path):
    built_here, packaged = tmp_path / "built", tmp_path / "packaged"
    for folder, kind in ((built_here, "other"), (packaged, "one")):
        folder.mkdir()
        for name in MODULES:
            (folder / name).write_bytes(objects[kind])
    with pytest.raises(KitError, match=r"kvm.ko built from the unedited source differs from the packaged one in .text"):
        check_unedited(built_here, packaged)
    assert check_unedited(packaged, packaged) > 2 * struct.calcsize("<Q")
