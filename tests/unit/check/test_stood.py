# SPDX-License-Identifier: GPL-2.0-only
"""Lists of operations in which judges once saw what was right as wrong, or what the engine now does right."""

from pathlib import Path

import pytest

from shadowmmu.check.fuzz import read_story, replay

LISTS = sorted((Path(__file__).parent / "stood").glob("*.ops"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_nothing_is_found(path: Path) -> None:
    setup, operations = read_story(path.read_text())
    assert replay(setup, operations) is None


def test_a_page_that_was_large_is_instructed_from() -> None:
    """An instruction in a large page which may not be executed gets both its translations, on each kernel."""
    lines = (
        "vcpu 0 instruction 0x200000 0x207000 0x2 0x1",
        "vcpu 0 access 0x201000 0x0 0x8 0x0",
        "vcpu 0 instruction 0x201000 0x200000 0x0 0x0",
    )
    for kernel in ("6.1", "6.12", "7.3"):
        for seed in range(12):
            head = ("# operations of shadowmmu", f"seed {seed}", "roots special", f"kernel {kernel}", "modes nonpaging", "")
            setup, operations = read_story("\n".join((*head, *lines)))
            assert replay(setup, operations) is None
