# SPDX-License-Identifier: GPL-2.0-only
"""The enums in the .pyi files, as the .pxd files beside them say: `python tools/stubs.py --write` writes them anew.

What else stands in a stub is written by hand, and held to the runtime by tests/unit/typing/test_stubs.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
_IN_PXD = re.compile(r"^cpdef enum (\w+):.*\n((?:(?: {4}.*)?\n)+)", flags=re.M)
_MEMBER = re.compile(r"^ {4}(\w+) = (\w+)", flags=re.M)


def with_enums(pxd: str, stub: str) -> str:
    """The stub with each enum of the .pxd, where it stands now or, if it is new, behind all else."""
    for name, body in _IN_PXD.findall(pxd):
        text = f"class {name}(IntFlag):\n" + "".join(f"    {member} = {value}\n" for member, value in _MEMBER.findall(body))
        old = re.search(rf"^class {name}\(IntFlag\):\n(?: .*\n)+", stub, flags=re.M)
        stub = stub.replace(old[0], text) if old else f"{stub}\n{text}"
    return stub


def main() -> None:
    for stub in SRC.rglob("*.pyi"):
        pxd = stub.with_suffix(".pxd")
        made = with_enums(pxd.read_text(), stub.read_text()) if pxd.exists() else stub.read_text()
        if made != stub.read_text():
            print(stub.relative_to(SRC.parent))
            if "--write" in sys.argv[1:]:
                stub.write_text(made)


if __name__ == "__main__":
    main()
