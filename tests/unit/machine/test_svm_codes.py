# SPDX-License-Identifier: GPL-2.0-only
"""Exit codes that compiled code knows are those that Python has."""

import re
from pathlib import Path

from shadowmmu.x86.vmcb import SvmExit

LAYOUT = Path(__file__).parents[3] / "src/shadowmmu/x86/vmcb_layout.pxd"


def test_compiled_exit_codes_are_the_same() -> None:
    told = {name: int(code, 16) for name, code in re.findall(r"^    (\w+)_EXIT = (0x\w+)", LAYOUT.read_text(), flags=re.M)}
    assert len(told) >= 11
    assert told == {name: SvmExit[name] for name in told}
