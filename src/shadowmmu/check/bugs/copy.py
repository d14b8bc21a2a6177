# SPDX-License-Identifier: GPL-2.0-only
"""A copy of the engine: what is built is taken along, so that only what an edit changed is built again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import shadowmmu
from shadowmmu.check.bugs.bug import Bug, apply
from shadowmmu.errors import BadInput


def checkout() -> Path:
    """Where the sources are from which this engine was built; an installed package has none."""
    root = Path(shadowmmu.__file__).parents[2]
    if not (root / "setup.py").exists() or not (root / "build" / "c").exists():
        raise BadInput("bugs are put into the engine's sources: run this from a checkout in which `make` has built it")
    return root


def copy_with(bug: Bug, into: Path) -> None:
    """The engine with the bug, built; raises BadInput if it does not fit or does not compile."""
    root = checkout()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy2(root / name, into)
    shutil.copytree(root / "src", into / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(root / "build" / "c", into / "build" / "c")
    apply(bug, into)
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=into, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise BadInput(
            f"{bug.id}: does not compile: {built.stderr.strip().splitlines()[-1] if built.stderr.strip() else 'no reason given'}"
        )
