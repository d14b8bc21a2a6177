# SPDX-License-Identifier: GPL-2.0-only
"""A saved list of operations as a guest: it passes on the engine as it is, and a bug that the list found is found by it again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shadowmmu.runs.exported
from shadowmmu.check.bugs.bug import read_bug
from shadowmmu.check.bugs.copy import checkout, copy_with
from shadowmmu.cli.main import call
from shadowmmu.machine.loader import read_guest

PLAYER = Path(shadowmmu.runs.exported.__file__).parent
BUGS = checkout() / "bugs"
HEAD = "# operations of shadowmmu\nseed {seed}\nroots special\nkernel 7.3\nmodes nonpaging 2-level pae 4-level 5-level\n\n"
PLAIN, INTEL = 5, 2
"""Seeds of a host without SMM and dirty logs of two minds; of one whose CPU is Intel's."""
MODES = {
    "2-level": "poke 0x2000 0x4 0x7027\npoke 0x701c 0x4 0x18025\nmode 0x80010031 0x2000 0x10 0x0",
    "pae": "poke 0x2000 0x8 0x6001\npoke 0x6000 0x8 0x7027\npoke 0x7038 0x8 0x8000000000018025\nmode 0x80010031 0x2000 0x30 0x800",
    "4-level": "poke 0x2000 0x8 0x5027\npoke 0x5000 0x8 0x6027\npoke 0x6000 0x8 0x7027\npoke 0x7038 0x8 0x8000000000018025\n"
    "mode 0x80010031 0x2000 0x100030 0x900",
    "5-level": "poke 0x2000 0x8 0x4027\npoke 0x4000 0x8 0x5027\npoke 0x5000 0x8 0x6027\npoke 0x6000 0x8 0x7027\n"
    "poke 0x7038 0x8 0x8000000000018025\nmode 0x80010031 0x2000 0x101030 0x900",
}
"""Page 0x7000 leads to page 0x18, not to be written or, where that can be said, executed."""
USES = """access 0x7000 0x0 0x8 0x0
access 0x7004 0x4 0x4 0x0
access 0x7000 0x2 0x2 0x1234
access 0x7000 0x6 0x1 0x0
access 0x7000 0x10 0x1 0x0
access 0x7000 0x14 0x1 0x0
emulated 0x7003 0x4 0x5 0x0
emulated 0x7000 0x2 0x4 0x1
access 0x1000 0x0 0x1 0x0
invlpg 0x7000
illegal 0x2 0x80000000
cr0 0x80000031
access 0x7000 0x2 0x8 0x1122334455667788
access 0x7000 0x0 0x8 0x0
mode 0x31 0x0 0x0 0x0
access 0x18000 0x0 0x4 0x0"""


def write_list(folder: Path, operations: str, seed: int = PLAIN) -> Path:
    path = folder / "list.ops"
    path.write_text(HEAD.format(seed=seed) + "\n".join(f"vcpu 0 {line}" for line in operations.splitlines()) + "\n")
    return path


def run(description: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    call(["run", str(description), "--json", *options])
    report: dict = json.loads(capsys.readouterr().out)
    return report


@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
def test_the_player_is_what_its_source_builds(tmp_path: Path) -> None:
    built = tmp_path / "player.img"
    subprocess.run(["nasm", "-f", "bin", "-Werror", "-I", "./", "-o", str(built), "player.asm"], cwd=PLAYER, check=True)
    assert built.read_bytes() == (PLAYER / "player.img").read_bytes(), "run 'make guests' and commit the image"


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["export", str(write_list(tmp_path, f"{MODES[mode]}\n{USES}")), "--to", str(tmp_path)]) == 0
    capsys.readouterr()
    report = run(tmp_path / "list.toml", capsys)
    assert report["as_expected"], report["result"]["output"]
    assert report["result"]["injected"]["#PF"] >= 4 and "INVLPG" in report["result"]["exits"]


def test_what_a_guest_sees_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another entry than the list's: each access that it decides over fails, and is named by its operation."""
    assert call(["export", str(write_list(tmp_path, f"{MODES['pae']}\n{USES}")), "--to", str(tmp_path)]) == 0
    capsys.readouterr()
    image = (tmp_path / "list.img").read_bytes()
    entry = (0x8000000000018025).to_bytes(8, "little")
    assert image.count(entry) == 1
    (tmp_path / "list.img").write_bytes(image.replace(entry, (0x18067).to_bytes(8, "little")))
    said = run(tmp_path / "list.toml", capsys)["result"]["output"]
    assert "FAIL operation 7, as supervisor writes 2 bytes at 0x7000: got" in said and "FAIL operation 9" in said
    assert "FAIL operation 5" not in said, "it is read as before"


@pytest.mark.parametrize("name", ["cve-2021-38198", "dirty-not-marked"])
def test_a_bug_is_found_again(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["export", str(BUGS / "lists" / f"{name}.ops"), "--to", str(tmp_path)]) == 0
    options = capsys.readouterr().out.split()[3:]
    assert run(tmp_path / f"{name}.toml", capsys, *options)["as_expected"]
    copy_with(read_bug(BUGS / f"{name}.toml"), tmp_path / "copy")
    done = subprocess.run(
        [sys.executable, "-m", "shadowmmu", "run", str(tmp_path / f"{name}.toml"), *options, "--json"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "copy" / "src")},
        capture_output=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report["as_expected"]
    if name == "dirty-not-marked":
        assert "the dirty log of memslot 1 misses page 0x4d" in report["result"]["detail"]
    else:
        assert report["violations"][0].startswith("I10")


def test_an_l2_is_the_player_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On tables of its own, in another mode, without nested paging."""
    operations = (
        f"{MODES['4-level']}\npoke 0x3000 0x4 0x8027\npoke 0x8000 0x4 0x1a027\nvmrun 0x80010031 0x3000 0x10 0x0\n"
        "access 0x0 0x6 0x4 0x5\naccess 0x0 0x0 0x4 0x0\nvmexit\naccess 0x7000 0x0 0x8 0x0"
    )
    assert call(["export", str(write_list(tmp_path, operations)), "--to", str(tmp_path)]) == 0
    capsys.readouterr()
    report = run(tmp_path / "list.toml", capsys)
    assert report["as_expected"], report
    assert report["result"]["reflected"] == {"vmmcall": 1}


def test_what_the_host_does_comes_at_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operations = (
        f"{MODES['4-level']}\naccess 0x7000 0x0 0x4 0x0\nzap_all\nswap 0x18 0x1\naccess 0x7000 0x0 0x4 0x0\noutside 0x18000 0x4 0xabcd\n"
        "access 0x7000 0x0 0x4 0x0\nslot 0x1 0x40 0x1d 0x2\nmode 0x31 0x0 0x0 0x0\naccess 0x41000 0x2 0x4 0x1\ndirty 0x1\nhost 0x0 0x40\n"
        "host 0x2 0x18\nhost 0x3 0x18\nhost 0x4 0x7\naccess 0x18000 0x0 0x4 0x0"
    )
    assert call(["export", str(write_list(tmp_path, operations)), "--to", str(tmp_path)]) == 0
    capsys.readouterr()
    found = read_guest(tmp_path / "list.toml")
    assert found.host is not None
    assert [step.do for step in found.host.step][:4] == ["zap-all", "move", "store", "memslot"]
    report = run(tmp_path / "list.toml", capsys)
    assert report["as_expected"], report
    text = (tmp_path / "list.toml").read_text()
    (tmp_path / "list.toml").write_text(text.replace("written = [0x41]", "written = [0x42]", 1))
    assert "the dirty log of memslot 1 misses page 0x42" in run(tmp_path / "list.toml", capsys)["result"]["detail"]


REFUSED = {
    "ept": ("seed 1\nroots special\nkernel 7.3\nmodes ept-4-level\n\nvcpu 0 zap_all\n", "extended page tables"),
    "npt": ("seed 1\nroots special\nkernel 7.3\nmodes npt-pae\n\nvcpu 0 zap_all\n", "nested tables"),
    "instruction": (
        "seed 5\nroots special\nkernel 7.3\nmodes nonpaging\n\nvcpu 0 zap_all\nvcpu 1 instruction 0x1000 0x7000 0x0 0x0\n",
        "operation 2, instruction on vcpu 1, is one instruction at two addresses",
    ),
    "own entry": (
        "seed 5\nroots special\nkernel 7.3\nmodes 2-level\n\nvcpu 0 mode 0x80000031 0x2000 0x10 0x0\nvcpu 0 poke 0x2900 0x4 0x0\n",
        "operation 2, poke on vcpu 0, takes away the entry by which the guest's own code is mapped",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_guest_can_do_is_refused_in_a_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, why = REFUSED[name]
    path = tmp_path / "list.ops"
    path.write_text(f"# operations of shadowmmu\n{text}")
    assert call(["export", str(path), "--to", str(tmp_path / "there")]) == 2
    out, error = capsys.readouterr()
    assert why in error and error.count("\n") == 1 and not out
    assert not (tmp_path / "there").exists()
