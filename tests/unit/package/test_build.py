# SPDX-License-Identifier: GPL-2.0-only
"""What is built again: what has changed, and what has moved."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from setuptools import Distribution

ROOT = Path(__file__).parents[3]


def make(place: Path) -> str:
    """By a make of its own, though a make runs the tests."""
    around = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", ".venv/.built"], cwd=place, env=around, check=True, capture_output=True, text=True).stdout


def test_a_module_that_moved_is_built_though_no_file_is_newer(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".venv/.venv", ".venv/bin/python", "setup.py", "src/room/before.pxd", "src/room/before.py"):
        tmp_path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(name).write_text("#!/bin/sh\n")
    tmp_path.joinpath(".venv/bin/python").chmod(0o755)
    assert make(tmp_path) == "building the engine\n"
    assert make(tmp_path) == ""
    for end in ("pxd", "py"):
        tmp_path.joinpath(f"src/room/before.{end}").rename(tmp_path / f"src/room/after.{end}")
    assert make(tmp_path) == "building the engine\n"
    assert make(tmp_path) == ""


def test_what_was_built_of_a_module_that_is_gone_goes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("setup_of_the_project", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    room = tmp_path / "src" / "shadowmmu" / "room"
    room.mkdir(parents=True)
    for name in ("stays.pxd", "stays.py"):
        (room / name).touch()
    monkeypatch.chdir(tmp_path)
    build = setup.Build(Distribution({"package_dir": {"": "src"}, "ext_modules": setup.extensions()}))
    build.inplace = True
    build.finalize_options()
    built = [Path(build.get_ext_fullpath(f"shadowmmu.room.{name}")) for name in ("stays", "went")]
    for path in built:
        path.touch()
    build.drop_orphans()
    assert [path.exists() for path in built] == [True, False]


def test_the_source_archive_has_the_pages_that_others_lead_to() -> None:
    """README.md is there by itself."""
    taken = set((ROOT / "MANIFEST.in").read_text().split())
    assert {page.name for page in ROOT.glob("*.md")} - taken == {"README.md"}
