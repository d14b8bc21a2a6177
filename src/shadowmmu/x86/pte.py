# SPDX-License-Identifier: GPL-2.0-only
"""Bits of the legacy paging-structure entries: `Pte`, `PteShift`, `Level`; see ``pte.pxd``."""
