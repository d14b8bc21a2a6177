# SPDX-License-Identifier: GPL-2.0-only
"""What a wheel and a source archive hold, how a package finds its data once installed, and what is pinned."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import shadowmmu

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def setup(*command: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "setup.py", "-q", *command], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel has: its packages and data, and the modules that are compiled here already."""
    place = tmp_path_factory.mktemp("installed")
    setup("egg_info", "--egg-base", str(tmp_path_factory.mktemp("egg")), "build_py", "--build-lib", str(place))
    for module in (ROOT / "src").rglob("*.so"):
        place.joinpath(module.relative_to(ROOT / "src")).symlink_to(module)
    return place


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of a source archive, relative to its folder."""
    place = tmp_path_factory.mktemp("archive")
    setup("egg_info", "--egg-base", str(place), "sdist", "--formats", "tar", "--dist-dir", str(place))
    (file,) = place.glob("*.tar")
    return [Path(*Path(member.name).parts[1:]) for member in tarfile.open(file) if member.isfile()]


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    return subprocess.run([sys.executable, "-m", "shadowmmu", *arguments], cwd=place, env=environment, capture_output=True, text=True)


def test_a_wheel_has_sources_and_data_and_nothing_that_was_made_on_the_way(installed: Path) -> None:
    kinds = {file.suffix for file in installed.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert (
        {".py", ".pxd", ".so", ".toml", ".img", ".capture"}
        <= kinds
        <= {".py", ".pxd", ".pyi", ".typed", ".txt", ".html", ".so", ".toml", ".img", ".capture"}
    )
    for pxd in (ROOT / "src").rglob("*.pxd"):
        assert installed.joinpath(pxd.relative_to(ROOT / "src")).exists()


def test_an_installed_package_runs_its_guests(installed: Path) -> None:
    ran = run(installed, "run", "nonpaging", "--audit", "exit")
    assert ran.returncode == 0, ran.stderr
    assert "passed" in ran.stdout


@pytest.mark.parametrize("verb", ["replay", "rerun"])
def test_an_installed_package_finds_the_captures_that_it_has(installed: Path, verb: str) -> None:
    (name, *_) = sorted(file.stem for file in installed.glob("shadowmmu/captures/shipped/nested/*.capture"))
    ran = run(installed, verb, f"nested/{name}")
    assert ran.returncode == 0, ran.stderr
    lost = run(installed, verb, "edges")
    assert lost.returncode == 2
    assert "no capture is named edges" in lost.stderr


def test_an_installed_package_knows_what_exercises_a_function(installed: Path) -> None:
    done = run(installed, "tests", "fast_pgd_switch")
    assert done.returncode == 0 and "shadowmmu step l1-no-npt" in done.stdout


def test_a_source_archive_has_all_that_its_tests_need_and_nothing_built(archive: list[Path]) -> None:
    folders = ["benchmarks", "capture", "docs", "guests", "src", "tests", "tools"]
    here = {file.relative_to(ROOT) for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()}
    wanted = {file for file in here if file.suffix not in (".pyc", ".so") and not any(part.endswith(".egg-info") for part in file.parts)}
    wanted |= {Path(name) for name in (".ci/run", "Makefile", "LICENSE", "README.md", "constraints.txt", "pyproject.toml", "setup.py")}
    assert wanted <= set(archive)
    assert not [file for file in archive if file.suffix in (".so", ".pyc") or (file.suffix == ".c" and file.parts[0] == "src")]


def test_the_version_is_that_of_pyproject() -> None:
    """And what it has is told first in the changelog."""
    version = PROJECT["project"]["version"]
    assert shadowmmu.__version__ == version
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[0] == version


def test_every_package_that_is_asked_for_is_pinned_at_a_version_that_will_do() -> None:
    """`make lock` brings constraints.txt up to date."""
    pins = dict(line.split(" ")[0].split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    groups = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        assert requirement.name in pins, f"{requirement.name} is not in constraints.txt: make lock"
        assert requirement.specifier.contains(pins[requirement.name]), f"{requirement} is pinned at {pins[requirement.name]}: make lock"
