# SPDX-License-Identifier: GPL-2.0-only
"""Where things lie in every guest: physical addresses, and the virtual addresses behind which they are mapped.

Code, stacks and tables are mapped at their own addresses, so that a guest can write its tables as they lie.
"""

PAGE = 4096
GDT, TSS, HANDLERS, IDT = 0x1000, 0x1800, 0x2000, 0x4000
KERNEL_STACK, USER_STACK = 0x7000, 0x8000
"""Tops of the stacks of privilege levels 0 and 3."""
CODE = 0x8000
TABLES = 0x18000
"""Page tables, and every other page that a guest takes for itself, from here on."""
IDENTITY_END = 0x80000
"""What lies below is mapped at its own address; from TABLES on for the supervisor only."""

DATA, DATA_MEMORY = 0x40_0000, 0x10_0000
"""Data pages: 16 of the 64 are mapped at first."""
DATA_PAGES, DATA_MAPPED = 64, 16
BIG, BIG_MEMORY = 0x100_0000, 0x40_0000
"""4 MiB of ordinary memory for large guest pages."""
HUGE, HUGE_MEMORY = 0x140_0000, 0x100_0000
"""4 MiB of hugetlb memory: slot 1."""
LOST, LOST_MEMORY = 0x200_0000, 0x200_0000
"""64 KiB that the host deletes, moves, takes away: slot 2."""
LOGGED, LOGGED_MEMORY = 0x201_0000, 0x300_0000
"""64 KiB under dirty logging: slot 3."""
MMIO, MMIO_ADDRESS = 0x202_0000, 0xD000_0000
"""No slot is there."""
HIGH = 0x4000_0000
"""The second gigabyte of addresses: another PDPTE."""

L2_CODE, L2_TABLES = 0x20_0000, 0x28_0000
"""An L2's programme and its own page tables, at the same address for L1 and L2."""
L2_DATA = 0x80_0000
"""Where a paged L2 maps the data pages."""


def page(number: int) -> int:
    """Virtual address of a data page."""
    return DATA + number * PAGE


def frame(number: int) -> int:
    """Physical address of a data page."""
    return DATA_MEMORY + number * PAGE
