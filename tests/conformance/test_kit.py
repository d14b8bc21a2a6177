# SPDX-License-Identifier: GPL-2.0-only
"""Reading what the capture kit writes: the same capture comes out that went in."""

from pathlib import Path

import msgspec
import pytest
from kit_files import write_kit

from shadowmmu.captures import kit, load
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.find import find
from shadowmmu.check.replay.replay import replay
from shadowmmu.errors import BadInput


@pytest.fixture
def written(tmp_path):
    """One shipped capture, written as the kit does."""
    capture = find("shadow/np32_dirty")[0].load()
    return write_kit(capture, tmp_path), capture


def test_kit_gives_the_same_capture(written):
    folder, original = written
    read = kit.read_capture(folder, original.guest.name)
    for field in msgspec.structs.fields(Capture):
        assert getattr(read, field.name) == getattr(original, field.name), field.name
    assert replay(read).ok


def test_the_kits_folder_says_which_roots_its_kernel_has(tmp_path):
    original = find(str(Path(__file__).parent / "special_kernel/shadow_special/np32_dirty.capture"))[0].load()
    read = kit.read_capture(write_kit(original, tmp_path), original.guest.name)
    assert read.setup.roots == original.setup.roots == "special"
    (tmp_path / "captures" / original.set / "_roots.txt").write_text("wooden\n")
    with pytest.raises(BadInput, match="its kernel has roots 'wooden', known are special, prefilled, legacy"):
        kit.read_capture(tmp_path / "captures" / original.set, original.guest.name)


def test_packed_file_gives_the_same_capture(written, tmp_path):
    _, original = written
    load.save(original, tmp_path / "one.capture")
    assert load.load(tmp_path / "one.capture") == original


def test_folders_are_found(written):
    folder, original = written
    found = find(str(folder.parent))
    assert [one.name for one in found] == [original.name]
    assert found[0].load().guest == original.guest


def test_a_missing_guest_is_named(written):
    folder, original = written
    for file in (folder.parent.parent / "guests").rglob("*.json"):
        file.unlink()
    with pytest.raises(BadInput, match=original.guest.name):
        kit.read_capture(folder, original.guest.name)
