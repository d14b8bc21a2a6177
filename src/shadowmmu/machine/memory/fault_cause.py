# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault a nested page fault is: the guest's walk of its own tables, or its access itself.

EXITINFO1 has a bit for each (APM vol. 2 section 15.25.6), and this processor does not tell them. A walk counts as a
write of the table, so only a write is in doubt.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from shadowmmu.machine.memory.guest_tables import GUEST_FINAL, GUEST_PAGE, PAGE_SIZE, paging_of, path_of

if TYPE_CHECKING:
    from shadowmmu import Vcpu

_LONGEST_TABLE = 0xFFFF


def write_fault_cause(vcpu: "Vcpu", touched: Iterable[int], gpa: int) -> int | None:
    """GUEST_PAGE or GUEST_FINAL for a write fault at `gpa` of an instruction that uses the linear addresses `touched`; None: none of
    them leads there.

    A fault on a table is known by its address, that of an entry for something the instruction touches.
    """
    if not paging_of(vcpu).levels:
        return GUEST_FINAL
    paths = [path_of(vcpu, page) for page in {gva & -PAGE_SIZE for gva in touched}]
    if any(gpa in path.entries for path in paths):
        return GUEST_PAGE
    if any(path.gpa is not None and path.gpa // PAGE_SIZE == gpa // PAGE_SIZE for path in paths):
        return GUEST_FINAL
    return None


def cause_by_tables(vcpu: "Vcpu", tables: Iterable[tuple[int, int]], gpa: int) -> int:
    """The same by addresses that the CPU touches by itself, which come last: an instruction that stores to an entry for one of them
    seldom uses it. `tables`: base and limit of GDT, IDT, LDT and TSS."""
    return GUEST_PAGE if any(is_on_path(vcpu, gva, gpa) for gva in _pages(tables)) else GUEST_FINAL


def is_on_path(vcpu: "Vcpu", gva: int, gpa: int) -> bool:
    """An entry for the linear address lies there."""
    return gpa in path_of(vcpu, gva).entries


def _pages(tables: Iterable[tuple[int, int]]) -> Iterator[int]:
    """A linear address in each of their pages."""
    for base, limit in tables:
        yield from range(base & -PAGE_SIZE, base + min(limit, _LONGEST_TABLE) + 1, PAGE_SIZE)
