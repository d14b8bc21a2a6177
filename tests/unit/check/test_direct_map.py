# SPDX-License-Identifier: GPL-2.0-only
"""An L1's stores through the host's nested tables: where they find no memory a mark may let them through later, unseen."""

import pytest

from shadowmmu.check.fuzz import Kind, Op, Setup, replay
from shadowmmu.engine.roots.designs import ROOT_DESIGNS

TABLE, NEIGHBOUR = 0x400000, 0x400008
AWAY, BACK = (0x2, 0x200, 0, 0), (0x2, 0x200, 0x600, 0)


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
@pytest.mark.parametrize("entry", [0x33005, 0x33067, 0])
def test_a_table_in_memory_that_came_back_is_stored_to_unseen(entry: int, roots: str) -> None:
    """Linux maps what was MMIO writable without a look at tables there, so what the entry was stays in force."""
    ops = [
        Op(Kind.POKE, 1, TABLE, 8, 0x4F067),
        Op(Kind.POKE, 0, 0x3018, 8, 0xC001),
        Op(Kind.POKE, 0, 0xCFF8, 8, TABLE | 0x27),
        Op(Kind.CR3, 0, 0x3000),
        Op(Kind.SLOT, 1, *AWAY),
        Op(Kind.CR4, 0, 0x100020),
        Op(Kind.L1_STORE, 0, TABLE, 8, 0x11063),
        Op(Kind.SLOT, 1, *BACK),
        Op(Kind.POKE, 0, NEIGHBOUR, 8, 0x2A027),
        Op(Kind.ACCESS, 0, 0xFFE01000, 4, 8, 0),
        Op(Kind.L1_STORE, 0, TABLE, 8, entry),
        Op(Kind.ACCESS, 0, 0xFFE00000, 0, 8, 0),
    ]
    failure = replay(Setup(72000060, roots, kernel="6.1"), ops)
    assert failure is None, failure and failure.message
