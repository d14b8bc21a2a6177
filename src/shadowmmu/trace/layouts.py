# SPDX-License-Identifier: GPL-2.0-only
"""The role word and RET_PF numbers of Linux from 2.6.3x to 2026: where each field lies, and the same role in the grammar's word.

The grammar has the word of Linux 6.1. What an older or newer kernel's word has besides keeps a place of its own in it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shadowmmu.engine.arena.role import Role, RoleShift, describe_role
from shadowmmu.errors import BadInput

NO_READ = 1 << 32
"""Beyond the kernel's word: ACC_READ_MASK is told, and is not set."""
MIRROR, SMEP = 1 << 19, 1 << 20
WIDE, NARROW = 8, 4
"""Bytes of a guest entry."""


class Layout(msgspec.Struct, frozen=True):
    """Bit positions of one generation of kernels; -1: the word has no such field.

    `size`: the bit that tells of entries' size, which is `wide` where they have 8 bytes.
    """

    kernels: str
    since: tuple[int, int]
    size: int
    wide: int
    quadrant: int
    direct: int
    access: int
    access_bits: int
    invalid: int
    nx: int
    wp: int = -1
    smep_andnot_wp: int = -1
    smap_andnot_wp: int = -1
    ad_disabled: int = -1
    guest_mode: int = -1
    passthrough: int = -1
    mirror: int = -1
    smep: int = -1
    smm: int = -1
    glevels: bool = False
    """The lowest four bits are the guest's levels, the level is behind them."""

    def role(self, word: int) -> int:
        """The grammar's role of this kernel's word."""
        level = word >> 4 & 15 if self.glevels else word & 15
        narrow = (word & 15) == 2 if self.glevels else (word >> self.size & 1) != self.wide
        access = word >> self.access & (1 << self.access_bits) - 1
        role = level | (word >> self.quadrant & 3) << int(RoleShift.QUADRANT_SHIFT)
        role |= int(Role.HAS_4_BYTE_GPTE) if narrow else 0
        role |= _access(access, self.access_bits)
        for name, bit in _FLAGS.items():
            place = getattr(self, name)
            if place >= 0 and word >> place & 1:
                role |= bit
        return role | (word >> 24 << 24 if self.smm >= 0 else 0)


_FLAGS = {
    "direct": int(Role.DIRECT), "invalid": int(Role.INVALID), "nx": int(Role.EFER_NX), "wp": int(Role.CR0_WP),
    "smep_andnot_wp": int(Role.SMEP_ANDNOT_WP), "smap_andnot_wp": int(Role.SMAP_ANDNOT_WP), "ad_disabled": int(Role.AD_DISABLED),
    "guest_mode": int(Role.GUEST_MODE), "passthrough": int(Role.PASSTHROUGH), "mirror": MIRROR, "smep": SMEP,
}  # fmt: skip


def _access(access: int, bits: int) -> int:
    """Three bits are execute, write, user; of four the order is read, write, user, execute."""
    if bits == 3:
        return access << int(RoleShift.ACCESS_SHIFT)
    read, write, user, execute = (access >> bit & 1 for bit in range(4))
    return (execute | write << 1 | user << 2) << int(RoleShift.ACCESS_SHIFT) | (0 if read else NO_READ)


_4X: dict[str, Any] = {"wp": 13, "smep_andnot_wp": 14, "smap_andnot_wp": 15, "smm": 24}
_AD: dict[str, Any] = _4X | {"ad_disabled": 16, "guest_mode": 17}
_MODERN: dict[str, Any] = {"quadrant": 5, "direct": 7, "access": 8, "access_bits": 3, "invalid": 11, "nx": 12}
LAYOUTS = (
    Layout("2.6.3x", (2, 6), size=0, wide=0, quadrant=8, direct=16, access=17, access_bits=3, invalid=20, nx=22, glevels=True),
    Layout(
        "3.0 to 3.19", (3, 0), size=4, wide=1, quadrant=5, direct=13, access=14, access_bits=3, invalid=17, nx=18, wp=19,
        smep_andnot_wp=20,
    ),
    Layout("4.0 to 5.0", (4, 0), size=4, wide=1, **_MODERN, **_AD),
    Layout("5.1 to 5.16", (5, 1), size=4, wide=1, **_MODERN, **_AD),
    Layout("5.17 to 6.12", (5, 17), size=4, wide=0, **_MODERN, **_AD, passthrough=18),
    Layout("6.13 to 7.1", (6, 13), size=4, wide=0, **_MODERN, **_AD, passthrough=18, mirror=19),
    Layout(
        "7.2 and later", (7, 2), size=4, wide=0, quadrant=5, direct=7, access=8, access_bits=4, invalid=12, nx=13, wp=14,
        smap_andnot_wp=15, ad_disabled=16, guest_mode=17, passthrough=18, mirror=19, smep=20, smm=24,
    ),
)  # fmt: skip
"""Oldest first."""
RET_PF = (
    ((5, 16), (-1, 3, 4)), ((5, 19), (-1, 4, 5)), ((6, 12), (3, 5, 6)),
)  # fmt: skip
"""From a kernel on: the numbers of RET_PF_WRITE_PROTECTED, FIXED and SPURIOUS; the first has none."""
RENAMED = {"kvm_mmu_invalidate_zap_all_pages": "kvm_mmu_zap_all_fast", "kvm_nested_vmrun": "kvm_nested_vmenter"}
"""Events of older kernels that the grammar knows by the name of 6.1."""
NEWEST_PLUGIN_RIGHT = (5, 17)
"""From here on libtraceevent's plugin prints what bit 4 says the wrong way round."""


def version_of(text: str) -> tuple[int, int]:
    """The kernel's version of words such as 5.15, v6.1.176 or 4.18.0-372.el8. Raises BadInput."""
    found = re.fullmatch(r"v?(\d{1,2})\.(\d{1,3})([.-].*)?", text)
    if not found:
        raise BadInput(f"--kernel {text}: not a kernel's version; write it as 5.15 or 6.1.176")
    return int(found[1]), int(found[2])


def layout_of(version: tuple[int, int]) -> Layout:
    """The newest layout that is not newer than the kernel."""
    return next((layout for layout in reversed(LAYOUTS) if layout.since <= version), LAYOUTS[0])


def fixed_and_spurious(version: tuple[int, int]) -> tuple[int, int]:
    """RET_PF_FIXED and RET_PF_SPURIOUS of a kernel."""
    return next((numbers[1:] for since, numbers in reversed(RET_PF) if since <= version), RET_PF[0][1][1:])


def describe(role: int) -> str:
    """A role in the kernel's words, with what the grammar's word has no bit for."""
    words = describe_role(role & 0xFFFF_FFFF)
    more = ((NO_READ, "no-read"), (MIRROR, "mirror"), (SMEP, "smep"))
    return " ".join((words, *(name for bit, name in more if role & bit)))
