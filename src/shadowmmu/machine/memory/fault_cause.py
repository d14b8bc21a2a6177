# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault a nested page fault is: the guest's walk of its own tables, or its access itself.

EXITINFO1 has a bit for each (APM vol. 2 section 15.25.6), and this processor does not tell them. A walk counts as a
write of the table, so only a write is in doubt. A fault on a table is known by its address, that of an entry for something that the
instruction touches.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.machine.cpu.registers import DescriptorTable
from cython.cimports.shadowmmu.machine.memory.guest_tables import GuestTables
from cython.cimports.shadowmmu.x86.pferr import Pferr

PAGE = cython.declare(uint64_t, 4096)
LONGEST_TABLE = cython.declare(cython.longlong, 0xFFFF)


def leads_to(tables: GuestTables, gva: uint64_t, gpa: uint64_t) -> cython.bint:
    """An entry for the linear address lies there."""
    tables.look(gva)
    return tables.uses(gpa)


def cause_at(tables: GuestTables, gva: uint64_t, gpa: uint64_t) -> uint64_t:
    """Of a write fault at `gpa` of an instruction that uses this linear address; 0: it does not lead there."""
    if leads_to(tables, gva & ~(PAGE - 1), gpa):
        return Pferr.GUEST_PAGE
    return Pferr.GUEST_FINAL if tables.leads and tables.gpa // PAGE == gpa // PAGE else 0


def is_of_table(tables: GuestTables, table: TablePtr, gpa: uint64_t) -> cython.bint:
    """One of its pages is reached by an entry there."""
    first: uint64_t = table.base & ~(PAGE - 1)
    left: cython.longlong = cython.cast(cython.longlong, table.base & (PAGE - 1)) + min(table.limit, LONGEST_TABLE) + 1
    while left > 0:
        if leads_to(tables, first, gpa):
            return True
        first += PAGE
        left -= cython.cast(cython.longlong, PAGE)
    return False


def write_fault_cause(vcpu: Vcpu, touched: object, gpa: uint64_t):
    """GUEST_PAGE or GUEST_FINAL for a write fault at `gpa` of an instruction that uses the linear addresses `touched`; None: none of
    them leads there."""
    tables: GuestTables = GuestTables(vcpu)
    found: uint64_t = 0
    if not tables.paging().levels:
        return Pferr.GUEST_FINAL
    for gva in touched:
        found |= cause_at(tables, gva, gpa)
    return Pferr.GUEST_PAGE if found & Pferr.GUEST_PAGE else found or None


def cause_by_tables(vcpu: Vcpu, tables: object, gpa: uint64_t):
    """The same by addresses that the CPU touches by itself, which come last: an instruction that stores to an entry for one of them
    seldom uses it. `tables`: base and limit of GDT, IDT, LDT and TSS."""
    table: DescriptorTable
    own: GuestTables = GuestTables(vcpu)
    for table.base, table.limit in tables:
        if is_of_table(own, cython.address(table), gpa):
            return Pferr.GUEST_PAGE
    return Pferr.GUEST_FINAL


def is_on_path(vcpu: Vcpu, gva: uint64_t, gpa: uint64_t):
    """An entry for the linear address lies there."""
    return bool(leads_to(GuestTables(vcpu), gva, gpa))
