# SPDX-License-Identifier: GPL-2.0-only
"""Suites: a small tree in the form of kvm-unit-tests, made here, and what is said of its images."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import suite_table

from shadowmmu.cli.main import call
from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import MAX_MEMORY_MIB, Guest
from shadowmmu.runs.guest_run import GuestRun
from shadowmmu.runs.suite.entries import Entry, guest_of, read_suite, why_skipped
from shadowmmu.runs.suite.junit import to_junit
from shadowmmu.runs.suite.output import SubTest, same_failures, sub_tests
from shadowmmu.runs.suite.run_suite import Image, SuiteReport, run_suite

_AT = 0x400000
CONFIG = """
[good]
file = good.flat
smp = 2
test_args = "-a 'b c'"

[bad]   # one of its tests fails
file = bad.flat
timeout = 30s

[skipped]
file = skipped.flat

[spins]
file = spins.flat
timeout = 1

[elsewhere]
file = good.flat
arch = i386

[manual]
file = good.flat
groups = nodefault

[nested]
file = good.flat
groups = vmx

[unbuilt]
file = unbuilt.flat
"""
IMAGES = {  # name -> what it prints, what it writes to the exit port
    "good": ("PASS: one\nPASS: two\nSUMMARY: 2 tests", 0),
    "bad": ("PASS: one\nFAIL: \x1b[2J two\nSKIP: three\n", 1),
    "skipped": ("SKIP: all of it\n", 77 >> 1),
}


def image(text: str, code: int) -> bytes:
    """Multiboot with address fields: prints, and writes to the exit port."""
    flags = 1 << 16
    header = struct.pack("<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, _AT, _AT, 0, 0, _AT + 32)
    where = _AT + 32 + 26
    program = bytes.fromhex("66baf803be") + struct.pack("<I", where) + bytes.fromhex("ac84c07403eeebf8b8") + struct.pack("<I", code)
    return header + program + bytes.fromhex("e7f4ebfe") + text.encode() + b"\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "x86").mkdir()
    (tmp_path / "config.mak").write_text("SRCDIR=/x\nARCH=x86_64\n")
    (tmp_path / "x86" / "unittests.cfg").write_text(CONFIG)
    for name, (text, code) in IMAGES.items():
        (tmp_path / "x86" / f"{name}.flat").write_bytes(image(text, code))
    spins = image("", 0)
    (tmp_path / "x86" / "spins.flat").write_bytes(spins[:32] + b"\xeb\xfe" + spins[34:])
    return tmp_path


def test_images_are_run_and_told_apart(tree: Path) -> None:
    report = run_suite(read_suite(tree), seconds=0.01)
    found = {image.name: (image.outcome, image.reason) for image in report.images}
    assert found == {
        "good": ("PASS", ""),
        "bad": ("FAIL", "exit code 1"),
        "skipped": ("SKIP", "all its tests were skipped"),
        "spins": ("FAIL", "time limit: 0.010 s of the guest's time"),
        "elsewhere": ("SKIP", "i386 only"),
        "manual": ("SKIP", "marked as manual run only"),
        "nested": ("SKIP", "not offered: VMX"),
        "unbuilt": ("SKIP", "unbuilt.flat was not built"),
    }
    bad = report.images[1]
    assert [(test.verdict, test.name) for test in bad.tests] == [("PASS", "one"), ("FAIL", "\x1b[2J two"), ("SKIP", "three")]
    assert bad.elsewhere == ["\x1b[2J two"], "it fails without shadow paging, too"
    assert not report.as_expected, "one of them never ends"


def test_what_became_of_a_test_elsewhere_is_told_beside(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "logs"
    assert call(["run", "--suite", str(tree), "--only", "bad", "--beside", str(logs)]) == 2
    assert "its run_tests.sh leaves them" in capsys.readouterr().err
    logs.mkdir()
    assert call(["run", "--suite", str(tree), "--only", "bad", "--beside", str(logs)]) == 0
    assert "beside" not in capsys.readouterr().out, "there is no log of this image"
    (logs / "bad.log").write_text("qemu ...\nPASS: \x1b[2J two\nFAIL: one\n")
    report = run_suite(read_suite(tree), only=["bad"], beside=logs)
    assert report.images[0].beside == {"\x1b[2J two": "PASS"}
    assert b"too: PASS beside" in to_junit(report)
    assert call(["run", "--suite", str(tree), "--only", "bad", "--beside", str(logs)]) == 0
    assert "fails without shadow paging, too: PASS beside" in capsys.readouterr().out
    (logs / "bad.log").write_text("")
    assert run_suite(read_suite(tree), only=["bad"], beside=logs).images[0].beside == {"\x1b[2J two": None}


def test_a_hypervisor_on_nested_paging_has_no_way_around_the_engine(tree: Path) -> None:
    config = tree / "x86" / "unittests.cfg"
    config.write_text(config.read_text().replace("file = bad.flat", "file = bad.flat\nqemu_params = -cpu max,+svm"))
    (found,) = run_suite(read_suite(tree), only=["bad"]).images
    assert (found.outcome, found.elsewhere) == ("FAIL", [])


def test_the_audit_sees_every_exit_of_an_image(tree: Path) -> None:
    (found,) = run_suite(read_suite(tree), audit="every", only=["good"]).images
    assert (found.outcome, found.count("PASS"), found.violations) == ("PASS", 2, [])


def test_options_of_an_entry_become_those_of_a_guest(tree: Path) -> None:
    suite = read_suite(tree)
    assert guest_of(suite, suite.entries[0]).arguments == "-a 'b c'"
    assert [entry.seconds for entry in suite.entries[:2]] == [90, 30]
    parameters = ("-cpu", "max,+svm,-x2apic,vendor=GenuineIntel", "-m", "4g")
    guest = guest_of(suite, Entry(name="e", file="good.flat", parameters=parameters, vcpus=4))
    assert (guest.vcpus, guest.memory_mib, guest.features, guest.without) == (4, 4096, ("la57", "npt", "pcid", "svm", "xsave"), ("x2apic",))
    assert guest.vendor == "Intel"
    guest = guest_of(suite, Entry(name="e", file="good.flat", parameters=("-cpu", "max,+svm,-npt", "-m", "2048")))
    assert (guest.memory_mib, guest.features) == (2048, ("la57", "pcid", "svm", "xsave"))
    assert guest_of(suite, Entry(name="e", file="good.flat", parameters=("-cpu", "qemu64,-x2apic"))).features == ()
    assert why_skipped(suite, Entry(name="e", file="good.flat", parameters=("-device", "intel-iommu"))) == "not offered: an IOMMU"


def test_lines_that_are_verdicts() -> None:
    text = "PASS: a: b\r\nPASS\nnoise PASS: x\nXFAIL: c\nXPASS: d\nFAIL:e\n"
    assert [(test.verdict, test.name) for test in sub_tests(text)] == [
        ("PASS", "a: b"),
        ("PASS", ""),
        ("XFAIL", "c"),
        ("XPASS", "d"),
        ("FAIL", "e"),
    ]
    twice = [SubTest("FAIL", "x"), SubTest("FAIL", "x")]
    assert same_failures(twice, twice[:1]) == ["x"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.mak", "ARCH=arm64\n", "is not for x86"),
        ("x86/unittests.cfg", "no section\n", "mend that line"),
        ("x86/unittests.cfg", "[a]\nfile = a\nsmp = many\n", "mend that line"),
        ("x86/unittests.cfg", "[a]\nfile = a\ntest_args = 'open\n", "mend that line"),
        ("x86/unittests.cfg", "[a]\nfile = a\nsmp = -5\n", "a has -5 vCPUs; mend that line"),
        ("x86/unittests.cfg", "[a]\nfile = ../../../etc/passwd\n", "lies outside its folder"),
        ("x86/unittests.cfg", "[a]\nfile = /dev/zero\n", "lies outside its folder"),
        ("x86/unittests.cfg", "[a]\nsmp = 1\n", "no section of it names a file"),
        ("x86/unittests.cfg", "", "no section of it names a file"),
    ],
)
def test_what_is_no_suite_is_refused(tree: Path, file: str, text: str, said: str) -> None:
    (tree / file).write_text(text)
    with pytest.raises(BadInput, match=said):
        read_suite(tree)
    with pytest.raises(BadInput, match="name a tree of kvm-unit-tests"):
        read_suite(tree / "x86")


@pytest.mark.parametrize(
    ("field", "has"),
    [
        (f"qemu_params = -m {'9' * 5000}", {"memory_mib": MAX_MEMORY_MIB}),
        ("qemu_params = -m 0", {"memory_mib": 128}),
        ("qemu_params = -m", {"memory_mib": 128}),
        ("qemu_params = -cpu qemu64,,+,-,=,+svm,", {"features": ("npt", "svm")}),
        ("smp = 99", {"vcpus": 16}),
    ],
)
def test_numbers_and_words_that_are_none_are_passed_over(tree: Path, field: str, has: dict[str, object]) -> None:
    (tree / "x86" / "unittests.cfg").write_text(f"[a]\nfile = good.flat\n{field}\n")
    suite = read_suite(tree)
    guest = guest_of(suite, suite.entries[0])
    assert {name: getattr(guest, name) for name in has} == has


@pytest.mark.parametrize(("timeout", "seconds"), [("0", 90), ("", 90), ("x", 90), ("9" * 5000, 999_999_999)])
def test_every_entry_has_a_bound(tree: Path, timeout: str, seconds: int) -> None:
    (tree / "x86" / "unittests.cfg").write_text(f"[a]\nfile = good.flat\ntimeout = {timeout}\n")
    assert read_suite(tree).entries[0].seconds == seconds


def test_an_image_that_cannot_be_loaded_fails_and_the_next_is_run(tree: Path) -> None:
    (tree / "x86" / "good.flat").write_bytes(b"nothing")
    os.mkfifo(tree / "x86" / "unbuilt.flat")
    found = {image.name: image for image in run_suite(read_suite(tree), only=["good", "skipped", "unbuilt"]).images}
    assert {name: image.outcome for name, image in found.items()} == {"good": "FAIL", "skipped": "SKIP", "unbuilt": "FAIL"}
    assert "no multiboot header" in found["good"].reason and "no regular file" in found["unbuilt"].reason


def test_an_image_without_room_fails_and_the_next_is_run(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(guest: Guest, *arguments: object, **options: object) -> GuestRun:
        if guest.memory_mib > 1000:
            raise MemoryError(f"no memory for an arena of a VM with {guest.memory_mib} MiB; ask for less memory_mib")
        return GuestRun(guest, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("shadowmmu.runs.suite.run_suite.GuestRun", machine)
    entries = tree / "x86" / "unittests.cfg"
    entries.write_text(f"{entries.read_text()}\n[large]\nfile = good.flat\nextra_params = -m 3072\n[last]\nfile = good.flat\n")
    found = {image.name: image for image in run_suite(read_suite(tree), only=["large", "last"]).images}
    assert found["large"].outcome == "FAIL" and "no memory for an arena of a VM with 3072 MiB" in found["large"].reason
    assert found["last"].outcome == "PASS"


def test_an_unknown_entry_is_refused(tree: Path) -> None:
    with pytest.raises(BadInput, match="has no nonsense"):
        run_suite(read_suite(tree), only=["nonsense"])


def test_junit_counts_and_has_no_character_that_xml_forbids(tree: Path) -> None:
    root = ElementTree.fromstring(to_junit(run_suite(read_suite(tree), only=["good", "bad", "nested"])))
    suites = [(suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("skipped")) for suite in root]
    assert suites == [
        ("good (special roots)", "3", "0", "0"),
        ("bad (special roots)", "4", "2", "1"),
        ("nested (special roots)", "1", "0", "1"),
    ]
    assert "\N{REPLACEMENT CHARACTER}[2J two" in {case.get("name") for case in root.iter("testcase")}


def test_the_verb(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["run", "--suite", str(tree), "--audit", "off", "--junit", str(tmp_path / "out.xml")]
    assert call([*options, "--only", "good", "bad"]) == 0
    shown = capsys.readouterr().out
    assert "PASS good (2 tests, 0 failures)" in shown and "fails without shadow paging, too" in shown and "\x1b[2J" not in shown
    assert ElementTree.parse(tmp_path / "out.xml").getroot().tag == "testsuites"
    assert call([*options[:3], "--only", "spins", "--seconds", "0.01", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["schema"], printed["audit"], printed["images"][0]["outcome"]) == ("shadowmmu.run.suite/1", "exit", "FAIL")
    for place in (tree / "config.mak" / "out.xml", "/dev/null"):
        assert call([*options[:-1], str(place)]) == 2
    assert call([*options, "--seconds", "inf"]) == 2


def test_reports_become_the_tables_of_the_page(tmp_path: Path) -> None:
    """Of an image in two reports the later one counts; what was not run is listed by its reason."""
    tests = [SubTest("PASS", "a"), SubTest("FAIL", "b|c"), SubTest("SKIP", "d")]
    images = [
        Image(name="one", outcome="FAIL", reason="exit code 1", tests=tests, elsewhere=["b|c"]),
        Image(name="two", outcome="FAIL", reason="time limit: 1 s", tests=[]),
        Image(name="three", outcome="SKIP", reason="i386 only"),
        Image(name="four", outcome="SKIP", reason="all its tests were skipped"),
        Image(name="five", outcome="SKIP", reason="not offered: VMX"),
    ]
    files = [tmp_path / name for name in ("64", "again", "32")]
    again = [Image(name="two", outcome="PASS")]
    short = [Image(name="three", outcome="PASS", tests=[SubTest("PASS", "x")]), Image(name="one", outcome="PASS", tests=tests[:1])]
    for file, some in zip(files, (images, again, short), strict=True):
        file.write_bytes(msgspec.json.encode(SuiteReport(directory="d", roots="special", audit="off", images=some)))
    lines = list(suite_table.tables(suite_table.read_images(files[:2]), suite_table.read_images(files[2:])))
    assert lines[2:6] == [
        "| `one` | 1 of 2, 1 skipped | 1 |",
        "| `two` | passed |  |",
        "| `three` |  | 1 |",
        "| `four` | skipped |  |",
    ]
    assert "| `one` | `b c` | fails, too |" in lines
    assert "In all 4 sub-tests were run, and 1 failed, 25.00% of them." in lines
    assert lines[-3:] == ["Not run were:", "", "* not offered: VMX: `five`"]
    page = f"before\n{suite_table.BEGIN}\nold\n{suite_table.END}\nbehind\n"
    assert suite_table.put_between(page, ["new"]) == f"before\n{suite_table.BEGIN}\nnew\n{suite_table.END}\nbehind\n"
