"""Bits of the legacy paging-structure entries: `Pte`, `PteShift`, `Level`; see ``pte.pxd``."""
