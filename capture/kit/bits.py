# SPDX-License-Identifier: GPL-2.0-only
"""Bits of x86 page tables and control registers (APM vol. 2, chapters 3 and 5)."""

P, W, U, A, D, PS, G = 1, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7, 1 << 8
"""Of an entry: present, writable, user, accessed, dirty, large page, global."""
NX = 1 << 63
RESERVED = 1 << 51
"""An address bit above every physical address width that the captured kernel is given: reserved in all 8-byte entries."""
ALL = P | W | U

CR0_PE, CR0_ET, CR0_NE, CR0_WP, CR0_PG = 1, 1 << 4, 1 << 5, 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE, CR4_LA57, CR4_PCIDE, CR4_SMEP, CR4_SMAP = 1 << 4, 1 << 5, 1 << 7, 1 << 12, 1 << 17, 1 << 20, 1 << 21
CR3_NOFLUSH = 1 << 63
EFER = 0xC000_0080
EFER_LME, EFER_LMA, EFER_NXE, EFER_SVME = 1 << 8, 1 << 10, 1 << 11, 1 << 12
VM_HSAVE_PA = 0xC001_0117
