# SPDX-License-Identifier: GPL-2.0-only
"""The table of root designs: ways to make a root for which the guest has no table.

A design is a module beside this one, with a function that fills in `RootOps`, and a row here. Nothing else in the
engine knows which one a VM has; the verbs, the checks and the tests take the designs from this table.
"""

from collections import OrderedDict
from typing import NamedTuple

import cython
from cython.cimports.shadowmmu.engine.arena.state import RootOpsPtr
from cython.cimports.shadowmmu.engine.roots.legacy_roots import legacy_roots
from cython.cimports.shadowmmu.engine.roots.prefilled_roots import prefilled_roots
from cython.cimports.shadowmmu.engine.roots.special_roots import special_roots


class Design(NamedTuple):
    """One design of roots, and what it says of itself."""

    name: str
    ops: int
    """Address of the function that fills in RootOps."""
    says: str
    """What it is, in a line."""
    bare: bool
    """Its roots are bare tables, filled when they are loaded and not again till the next load; else special shadow pages."""
    kernel: str
    """The kernel that has it, whose captures it must meet event by event; empty: none has, and it is held against that one's."""
    differences: str
    """In which of the differences of check/special_roots/known_differences.py it may part from the kernel's."""
    more: dict[str, str]
    """Why of all designs it has the most "roots", "faults", "pages" or "loads", where that may be: `shadowmmu compare`."""


@cython.cfunc
def address(ops: SetOps) -> object:
    return cython.cast(cython.size_t, ops)


_MADE = "A special page is made and freed with each root; a bare table is there for good."
_HELD = (
    "A legacy level-2 page is held by its root: when it is zapped, the root is obsolete and all of it is loaded anew. "
    "A special page loses one entry, and the page comes back only if it is used; till then stores to its table are not traced."
)
_ROWS = (
    Design(
        name="special",
        ops=address(special_roots),
        says="special shadow pages, empty when loaded, filled by faults",
        bare=False,
        kernel="",
        differences="abcdefg",
        more={
            "roots": _MADE,
            "faults": "A special root starts empty: the first access below each of its entries faults, finds the level-2 page again and "
            "links it.",
        },
    ),
    Design(
        name="prefilled",
        ops=address(prefilled_roots),
        says="special shadow pages that lead from the load on to level-2 pages that are there",
        bare=False,
        kernel="",
        differences="abcdefg",
        more={
            "roots": _MADE,
            "faults": "A prefilled root leads at first only to level-2 pages that are there when it is loaded: one that is made later is "
            "linked by a fault.",
        },
    ),
    Design(
        name="legacy",
        ops=address(legacy_roots),
        says="the bare tables of today's kernel, filled when loaded",
        bare=True,
        kernel="Linux",
        differences="",
        more={
            "pages": "A legacy root gets a level-2 page for every PDPTE at every load, used or not; below a special page there are only "
            "those that were touched: fewer tables are shadowed, and fewer pages zapped when the guest writes its tables.",
            "faults": _HELD,
            "loads": _HELD,
        },
    ),
)
ROOT_DESIGNS = OrderedDict((design.name, design) for design in _ROWS)
"""By name; the first is the one that a VM has if none is asked for."""


def find_design(name: str) -> Design:
    """Raises ValueError for a name that is not in the table."""
    if name not in ROOT_DESIGNS:
        raise ValueError(f"roots is {name!r}; choose one of {', '.join(map(repr, ROOT_DESIGNS))}")
    return ROOT_DESIGNS[name]


@cython.cfunc
def set_root_ops(ops: RootOpsPtr, name: str) -> object:
    """Raises ValueError like `find_design`."""
    fill: SetOps = cython.cast(SetOps, cython.cast(cython.size_t, find_design(name).ops))
    fill(ops)
    return None
