# SPDX-License-Identifier: GPL-2.0-only
"""The kit's edits of the kernel, without its source: where they bite, what they say, which packages they want."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "capture"))

import capture as driver  # noqa: E402
from kit.errors import KitError  # noqa: E402
from kit.kernel import packages  # noqa: E402
from kit.kernel.compiler import enclose  # noqa: E402
from kit.kernel.modules import EDITS, MODULES, built, check_unedited  # noqa: E402
from kit.kernel.sections import PLACE, differing, loaded  # noqa: E402
from kit.kernel.source import WHOLE, Edit, apply, edited  # noqa: E402
from kit.kernels import KERNELS  # noqa: E402

EVERY = [
    pytest.param(edit, id=f"{name}-{series}-{number}")
    for name, of_series in EDITS.items()
    for series, edits in of_series.items()
    for number, edit in enumerate(edits)
]
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
    assert max(len(param.values[0].old) for param in EVERY) < 120


def test_every_kernel_that_is_captured_can_be_edited():
    """Most edits are shared: a few are for what one kernel has alone."""
    for of_series in EDITS.values():
        assert of_series.keys() == KERNELS.keys()
        shared = set.intersection(*(set(edits) for edits in of_series.values()))
        assert all(len(edits) - len(shared) <= 6 for edits in of_series.values())


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
    told = set(re.findall(r"\b[RH]\d+\b", kernel)) | {
        rule for edit in EDITS["special"]["6.1"] for rule in re.findall(r"\b[RH]\d+\b", edit.why)
    }
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


class NoArchive:
    """An archive that has moved on."""

    def versions(self, _name):
        return ["6.1.30-2", "6.1.30-1"]


VERSIONS = {"6.1": ("linux-image-6.1.0-7-amd64", "6.1.20-1"), "7.3": ("linux-binary-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1")}
"""The package that `fetch` took, and its version."""


@pytest.fixture(params=VERSIONS)
def fetched(tmp_path, monkeypatch, request):
    """A kernel, with the folder that it was fetched into."""
    folder = tmp_path / request.param / "packages"
    folder.mkdir(parents=True)
    image, version = VERSIONS[request.param]
    (folder / f"{image}_{version}_amd64.deb").write_bytes(b"")
    (folder / "vmlinuz").write_bytes(b"")
    monkeypatch.setattr(packages, "program", lambda name, _package: name)
    monkeypatch.setattr(packages, "call", lambda *_: f"{version}\n")
    monkeypatch.setattr(packages, "archive", lambda *_: NoArchive())
    return KERNELS[request.param], folder


def test_packages_are_those_of_the_kernels_version(fetched):
    kernel, folder = fetched
    version = VERSIONS[kernel.name][1]
    release = "6.1.0-7" if kernel.name == "6.1" else "7.3.4+deb13"
    names = [f"linux-headers-{release}-amd64", f"linux-headers-{release}-common", f"linux-source-{kernel.name}"]
    for name in names:
        (folder / f"{name}_6.1.19-1_all.deb").write_bytes(b"")
        (folder / f"{name}_{version}_all.deb").write_bytes(b"")
    kbuild = "linux-kbuild-6.1_6.1.30-1_amd64.deb" if kernel.name == "6.1" else f"linux-kbuild-{release}_{version}_amd64.deb"
    (folder / kbuild).write_bytes(b"")
    if kernel.compiler:
        (folder / "compiler").mkdir()
        (folder / "compiler" / "gcc-14.deb").write_bytes(b"")
    found = packages.fetch(folder, kernel, None)
    assert (found.series, found.kernel, found.version) == (kernel.name, f"{release}-amd64", version)
    assert [path.name for path in (found.headers, found.common, found.source)] == [f"{name}_{version}_all.deb" for name in names]
    assert found.kbuild.name == kbuild
    assert [path.name for path in found.compiler] == (["gcc-14.deb"] if kernel.compiler else [])


def test_an_archive_that_has_moved_on_is_told_in_a_line(fetched, capsys):
    kernel, folder = fetched
    assert driver.main(["modules", "--kernel", kernel.name, "--work", str(folder.parents[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    release, version = VERSIONS[kernel.name]
    assert f"the archive has moved on: the kernel needs linux-headers-{release.split('-', 2)[2]} {version}, and apt has 6.1.30-2" in line
    assert "snapshot.debian.org" in line and "--cache" in line


def test_a_later_debians_programs_run_with_their_own_libraries(tmp_path):
    """The machine's own shell stands for one: its loader and libraries are taken to a folder, as packages would have them."""
    ldd = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    programs = tmp_path / "usr/bin"
    for folder in (libraries, programs):
        folder.mkdir(parents=True)
    for path in re.findall(r"(/\S+) \(0x", ldd):
        shutil.copy(path, libraries)
    shutil.copy("/bin/sh", programs / "tool")
    (programs / "script").write_text("#!/bin/sh\n")
    enclose(tmp_path)
    assert {path.name for path in programs.iterdir()} == {"tool", "tool.elf", "script"}
    assert not list(libraries.glob("*.elf"))
    told = subprocess.run(
        [programs / "tool", "-c", 'read -r map < /proc/$$/maps; echo "$0"; cat /proc/$$/maps'], capture_output=True, text=True, check=True
    )
    assert str(libraries / "libc.so.6") in told.stdout and "tool" in told.stdout.splitlines()[0]


def test_missing_things_are_named(tmp_path, capsys):
    for words, says in (
        (["modules"], "run capture.py fetch"),
        (["modules", "--kernel", "7.3"], "no package of Linux 7.3 in"),
        (["modules", "--edit", "legacy"], "special"),
    ):
        assert driver.main([*words, "--work", str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
    with pytest.raises(KitError, match=r"run capture\.py modules --edit posted"):
        built(tmp_path, "posted")


FILES = 'const char file[] = "{}", after[] = "after"; const char *const name(void) {{ return after; }}'
"""As a report of the sanitizer has it, and something behind it."""


@pytest.fixture
def objects(tmp_path):
    """Two objects of the same code, and a third of other code."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: apt install gcc")
    texts = {
        "one": "int f(void) { return 1; }",
        "same": "int f(void)\n{ return 1; }",
        "other": "int f(void) { return 2; }",
        "here": FILES.format("/home/me/arch/x86/kvm/x.c"),
        "there": FILES.format("/build/linux/arch/x86/kvm/x.c"),
        "renamed": FILES.format("/build/linux/arch/x86/kvm/y.c"),
        "calls": "void g(void); void h(void); void f(void) { g(); }",
        "calls other": "void g(void); void h(void); void f(void) { h(); }",
    }
    for name, text in texts.items():
        source = tmp_path / "unit.c"
        source.write_text(text)
        subprocess.run(["gcc", "-g", "-c", "-o", str(tmp_path / name), str(source)], check=True)
    return {name: (tmp_path / name).read_bytes() for name in texts}


def test_code_and_data_are_compared_by_section(objects):
    found = differing(objects["one"], objects["same"])
    assert found.sections == [] and found.compared > 10
    assert ".debug_info" not in loaded(objects["one"]).content
    assert differing(objects["one"], objects["other"]).sections == [".text"]


def test_what_is_called_is_compared_too(objects):
    """The bytes of both calls are the same: only their relocations tell."""
    one, other = objects["calls"], objects["calls other"]
    assert loaded(one).content[".text"] == loaded(other).content[".text"]
    assert differing(one, other).sections == [".text"]


def test_the_place_of_a_source_file_is_of_the_build(objects):
    here = differing(objects["here"], objects["there"])
    assert here.sections == [] and here.renamed == 1
    assert differing(objects["here"], objects["renamed"]).sections == [".rodata"]
    assert PLACE.sub(b"", b"/build/linux/arch/x86/kvm/../../../virt/kvm/kvm_main.c") == b"virt/kvm/kvm_main.c"


def test_a_rebuild_that_differs_is_refused(objects, tmp_path):
    built_here, packaged = tmp_path / "built", tmp_path / "packaged"
    for folder, kind in ((built_here, "other"), (packaged, "one")):
        folder.mkdir()
        for name in MODULES:
            (folder / name).write_bytes(objects[kind])
    with pytest.raises(KitError, match=r"kvm.ko built from the unedited source differs from the packaged one in .text"):
        check_unedited(built_here, packaged)
    assert re.fullmatch(r"unedited: [0-9]{2,} bytes of code and data are the packaged modules'", check_unedited(packaged, packaged))
