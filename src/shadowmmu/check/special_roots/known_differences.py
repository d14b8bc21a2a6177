# SPDX-License-Identifier: GPL-2.0-only
"""How a VM with roots of special pages differs from the kernel: every difference has a letter, and no other is allowed."""

from __future__ import annotations

from typing import NamedTuple


class KnownDifference(NamedTuple):
    """A documented difference."""

    letter: str
    what: str
    why: str


KNOWN_DIFFERENCES = (
    KnownDifference(
        "a",
        "level-2 pages are looked up, linked and synced when they are needed",
        "a special root leads, when it is loaded, to none of them or to those that are there; the kernel looks up all four",
    ),
    KnownDifference(
        "b",
        "level-2 pages have parents and no root count",
        "the special page above holds them, not the root: a zapped one is freed at once, and may be recycled",
    ),
    KnownDifference(
        "c",
        "a PDPTE that names no memory faults when it is used",
        "the kernel checks all PDPTEs when it loads a root, and shuts the guest down",
    ),
    KnownDifference(
        "d",
        "a zapped level-2 page costs a PDPTE, not the root",
        "it is unlinked from the special page above it; the kernel asks the vCPU to load its root anew",
    ),
    KnownDifference(
        "e",
        "a root is freed as obsolete only if it is",
        "a bare root has no generation of its own, so a request that is another's frees it: another vCPU's, or the other MMU's",
    ),
    KnownDifference(
        "f",
        "a special page is made and freed with its root",
        "it is a shadow page, neither hashed nor counted; a bare root is a table that is there for good",
    ),
    KnownDifference(
        "g",
        "an input that meets other tables does what these need",
        "by a to e the two have other pages, entries or unsync marks where it looks",
    ),
)
"""All of them. A replay counts how often each explains an event, an entry of a dump or a counter."""
