# SPDX-License-Identifier: GPL-2.0-only
"""The guest images that are checked in are what their sources build."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

GUESTS = Path(__file__).resolve().parents[2] / "guests"
NAMES = sorted(path.stem for path in GUESTS.glob("*.asm"))
NASM = shutil.which("nasm")
MODES = {"nonpaging", "2-level", "pae", "4-level", "5-level"}


def description(name: str) -> dict[str, object]:
    """The guest's TOML description."""
    return tomllib.loads((GUESTS / f"{name}.toml").read_text())


def test_every_guest_is_complete() -> None:
    """Source, image and description come together."""
    assert NAMES
    for suffix in ("img", "toml"):
        assert sorted(path.stem for path in GUESTS.glob(f"*.{suffix}")) == NAMES


@pytest.mark.skipif(NASM is None, reason="nasm is not installed: cannot rebuild the guest images")
@pytest.mark.parametrize("name", NAMES)
def test_image_is_what_the_source_builds(name: str, tmp_path: Path) -> None:
    """Rebuilding gives the checked-in image, byte for byte."""
    built = tmp_path / f"{name}.img"
    subprocess.run(
        [str(NASM), "-f", "bin", "-Werror", "-I", "include/", "-o", str(built), f"{name}.asm"],
        cwd=GUESTS,
        check=True,
    )
    same = built.read_bytes() == (GUESTS / f"{name}.img").read_bytes()
    assert same, f"guests/{name}.img is out of date: run 'make -C guests' and commit the image"


@pytest.mark.parametrize("name", NAMES)
def test_description(name: str) -> None:
    """The description names this image and the last line a right run prints."""
    guest = description(name)
    assert guest["name"] == name
    assert guest["image"] == f"{name}.img"
    assert guest["format"] == "multiboot"
    assert guest["mode"] in MODES
    assert guest["memory_mib"] == 32
    assert str(guest["expect"]).startswith("DONE ")
    assert str(guest["expect"]).endswith(" passed, 0 failed")


@pytest.mark.parametrize("name", NAMES)
def test_multiboot_header(name: str) -> None:
    """The header is a valid multiboot v1 one and describes the file exactly."""
    image = (GUESTS / f"{name}.img").read_bytes()
    words = [int.from_bytes(image[i : i + 4], "little") for i in range(0, 32, 4)]
    magic, flags, checksum, header, load, load_end, bss_end, entry = words
    assert magic == 0x1BADB002
    assert flags == 1 << 16
    assert (magic + flags + checksum) % (1 << 32) == 0
    assert header == load == 1 << 20
    assert load_end - load == len(image)
    assert load < entry < load_end <= bss_end < 4 << 20
