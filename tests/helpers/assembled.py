# SPDX-License-Identifier: GPL-2.0-only
"""Programs of tests are kept as bytes, so that nobody needs nasm; where it is, they are held to their sources."""

import shutil
import subprocess
from pathlib import Path

import pytest


def assembled(source: Path, folder: Path) -> bytes:
    """What nasm makes of it, in a file of `folder`. Without nasm the test is skipped."""
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    built = folder / "program.bin"
    subprocess.run(["nasm", "-f", "bin", "-o", built, source], check=True)
    return built.read_bytes()
