# SPDX-License-Identifier: GPL-2.0-only
"""How each captured kernel writes its events: what it means by numbers and fields that have changed.

The grammar's own form is Linux 6.1's; what another kernel writes is read into it. Role words and RET_PF numbers are those
of `layouts`, which knows every kernel's.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import msgspec

from shadowmmu.engine.arena.role import Role
from shadowmmu.trace.layouts import NO_READ, SMEP, fixed_and_spurious, layout_of, version_of

ALL_ROOTS = (1 << 64) - 1
"""In the grammar: every root; at set-up and reset the kernel frees all of each of its MMUs, loaded or not."""
CURRENT_ONLY = 0
"""In the grammar, as the root of `invalidate_gva`: the current one, where the kernel does not tell its address."""


class Form(msgspec.Struct, frozen=True, dict=True):
    """What one kernel writes otherwise."""

    kernel: str
    all_roots: int
    """KVM_MMU_ROOTS_ALL, in free_roots."""
    masks_roots: bool
    """invalidate_gva tells a mask of roots and not an address."""
    returns_code: bool
    """mmu_page_fault_ret is a RET_PF code where others have 1."""

    @cached_property
    def fixed(self) -> int:
        """RET_PF_FIXED, in fast_page_fault."""
        return fixed_and_spurious(version_of(self.kernel))[0]

    @cached_property
    def spurious(self) -> int:
        """RET_PF_SPURIOUS."""
        return fixed_and_spurious(version_of(self.kernel))[1]

    def to_role(self, word: int) -> int:
        """The engine's role word: there is one place for SMEP, whether or not the kernel tells it apart from CR0.WP."""
        return _role(self.kernel, word)


@lru_cache(4096)
def _role(kernel: str, word: int) -> int:
    role = layout_of(version_of(kernel)).role(word)
    smep = int(Role.SMEP_ANDNOT_WP) if role & SMEP else 0
    return role & ~(NO_READ | SMEP) | smep


FORMS = {
    "6.1": Form("6.1", all_roots=ALL_ROOTS, masks_roots=False, returns_code=False),
    "6.12": Form("6.12", all_roots=0xF, masks_roots=True, returns_code=False),
    "7.3": Form("7.3", all_roots=0xF, masks_roots=True, returns_code=True),
}
"""By series, as the engine's KERNELS."""
