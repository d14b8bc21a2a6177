# SPDX-License-Identifier: GPL-2.0-only
"""User code under mypy --strict and pyright: what is right passes, what is wrong is refused, line by line; the README's example too."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


def mypy(file: Path, cache: Path) -> dict[int, str]:
    """Line -> what mypy has against it."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--output=json", f"--cache-dir={cache}", str(file)]
    told = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    assert told.returncode in (0, 1), told.stdout + told.stderr
    errors = [json.loads(line) for line in told.stdout.splitlines() if line]
    return {error["line"]: error["message"] for error in errors if error["severity"] == "error"}


def pyright(file: Path, cache: Path) -> dict[int, str]:
    """Line -> what pyright has against it."""
    command = [sys.executable, "-m", "pyright", "--outputjson", f"--pythonpath={sys.executable}", str(file)]
    told = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    assert told.returncode in (0, 1), told.stdout + told.stderr
    errors = [error for error in json.loads(told.stdout)["generalDiagnostics"] if error["severity"] == "error"]
    return {error["range"]["start"]["line"] + 1: error["message"] for error in errors}


Checker = Callable[[Path, Path], dict[int, str]]
checkers = pytest.mark.parametrize("check", [mypy, pyright])


@checkers
def test_what_is_right_passes(check: Checker, tmp_path: Path) -> None:
    assert check(HERE / "good.py", tmp_path) == {}


@checkers
def test_what_is_wrong_is_refused(check: Checker, tmp_path: Path) -> None:
    wrong = {number for number, line in enumerate((HERE / "bad.py").read_text().splitlines(), 1) if line.endswith("# wrong")}
    refused = check(HERE / "bad.py", tmp_path)
    assert set(refused) == wrong, refused


@checkers
def test_the_example_of_the_readme_passes(check: Checker, tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    file = tmp_path / "example.py"
    file.write_text(example)
    assert check(file, tmp_path) == {}
