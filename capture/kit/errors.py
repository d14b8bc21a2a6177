# SPDX-License-Identifier: GPL-2.0-only
"""Errors that are the user's to mend, and the programs whose absence is one of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class KitError(Exception):
    """One line: what is wrong, and what to do."""


def program(name: str, package: str) -> str:
    """The path of a program; KitError names the Debian package that brings it."""
    path = shutil.which(name)
    if path is None:
        raise KitError(f"no {name}: apt install {package}")
    return path


def call(arguments: list[str], remedy: str, cwd: Path | None = None) -> str:
    """Run a program and give what it printed; if it fails, KitError with its own last line and `remedy`."""
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise KitError(f"{Path(arguments[0]).name}: {said[-1] if said else f'exit code {done.returncode}'}; {remedy}")
    return done.stdout
