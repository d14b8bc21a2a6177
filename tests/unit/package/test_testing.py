# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin for people's own tests, and the calls that docs/python.md tells of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[3] / "docs" / "python.md"


def test_every_vm_of_a_test_is_audited(pytester: pytest.Pytester) -> None:
    """One that breaks an invariant by a store into a shadow table fails, or is left out."""
    pytester.makepyfile(
        """
        import ctypes

        import pytest
        from shadowmmu import Vm
        from shadowmmu.cli.guests import find_guest
        from shadowmmu.machine.machine import Machine

        def broken():
            machine = Machine(find_guest("nonpaging"))
            machine.run(max_exits=200)
            page = next(page for page in machine.vm.shadow_pages() if page.level == 1)
            for hpa, size, address in machine.vm.host_regions():
                if hpa <= page.hpa < hpa + size:
                    ctypes.c_uint64.from_address(address + page.hpa - hpa).value = 0x123007

        def test_whole():
            Vm(memory_mib=8)

        def test_broken():
            broken()

        @pytest.mark.unaudited
        def test_left_out():
            broken()
        """
    )
    result = pytester.runpytest_subprocess("-p", "shadowmmu.testing", "-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=2, failed=1)
    assert re.search(r"I\d+: ", result.stdout.str())


@pytest.mark.parametrize("example", re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S))
def test_the_examples_of_the_page_run(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PAGE.parents[1])
    exec(compile(example, "python.md", "exec"), {})
