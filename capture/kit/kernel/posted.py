# SPDX-License-Identifier: GPL-2.0-only
"""Special roots with two hazards of the series as it was posted, on top of `special`: so that captures show what they do."""

from __future__ import annotations

from kit.kernel.source import Edit
from kit.kernel.special import SPECIAL

ROOTS = "kvm/mmu/special_roots.c"
_HAZARDS = (
    Edit(ROOTS, "is_special_root", r"\tstruct kvm_mmu_page [^;]*;\n\n\treturn [^;]*;", "\treturn wants_special_root(mmu);",
         "H1: the MMU's present mode is asked, not the root"),
    Edit(ROOTS, "special_index", r"return [^;]*;", "return it->index;", "H2: the index into a level-3 page is not bounded"),
    Edit(ROOTS, "is_beyond_guest_tables", r"return [^;]*;", "return false;", "H2: addresses beyond 4 GiB are walked by their low bits"),
)  # fmt: skip
POSTED = {series: edits + _HAZARDS for series, edits in SPECIAL.items()}
"""By series of the kernel."""
