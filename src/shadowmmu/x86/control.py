# SPDX-License-Identifier: GPL-2.0-only
"""Bits of CR0, CR3, CR4, EFER and RFLAGS, and the paging mode they select.

The enums `Cr0`, `Cr3`, `Cr4`, `Efer` and `Rflags` are declared in ``control.pxd``.
"""

import cython


@cython.ccall
@cython.exceptval(check=False)
@cython.nogil
def paging_levels(cr0: cython.ulonglong, cr4: cython.ulonglong, efer: cython.ulonglong) -> cython.int:
    """Levels of the guest's paging mode: 0 (no paging), 2, 3 (PAE), 4 or 5. SDM vol. 3 section 4.1.1."""
    if not cr0 & Cr0.PG:
        return 0
    if not cr4 & Cr4.PAE:
        return 2
    if not efer & Efer.LMA:
        return 3
    return 5 if cr4 & Cr4.LA57 else 4
