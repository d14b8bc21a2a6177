"""The role word: with the gfn, what makes two shadow pages the same. Layout and enums are in ``role.pxd``."""

import cython
from cython.cimports.shadowmmu.engine.state import role_t

_ACCESS_TEXT = ("---", "--x", "w--", "w-x", "-u-", "-ux", "wu-", "wux")
_FLAGS = (
    (0x800, "invalid"),
    (0x1000, "efer_nx"),
    (0x2000, "cr0_wp"),
    (0x4000, "smep_andnot_wp"),
    (0x8000, "smap_andnot_wp"),
    (0x10000, "ad_disabled"),
    (0x20000, "guest_mode"),
    (0x40000, "passthrough"),
)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def child_role(parent: role_t, index: cython.int, direct: cython.bint, access: cython.int) -> role_t:
    """kvm_mmu_child_role: the role of the page below entry `index` of a page with role `parent`.

    A 4-byte guest table has 1024 entries, a shadow page 512: a guest page table needs two shadow pages and the
    guest page directory four, told apart by the low bits of the parent's index. The kernel needs one bit
    (level 1); below a special level-3 page the level-2 child needs two (hazard H13).
    """
    level: cython.int = role_level(parent) - 1
    role: role_t = parent & ~cython.cast(role_t, Role.LEVEL | Role.ACCESS | Role.DIRECT | Role.PASSTHROUGH | Role.QUADRANT | Role.INVALID)
    role |= level | cython.cast(role_t, access) << RoleShift.ACCESS_SHIFT
    if direct:
        role |= Role.DIRECT
    if role & Role.HAS_4_BYTE_GPTE and level < 3:
        role |= (cython.cast(role_t, index) & ((1 << level) - 1)) << RoleShift.QUADRANT_SHIFT
    return role


def describe_role(role: int) -> str:
    """A role word in the kernel's words, e.g. ``l2 4-byte q3 wux efer_nx cr0_wp``."""
    words = [f"l{role & 0xF}", "4-byte" if role & 0x10 else "8-byte", f"q{role >> 5 & 3}"]
    if role & 0x80:
        words.append("direct")
    words.append(_ACCESS_TEXT[role >> 8 & 7])
    words += [name for bit, name in _FLAGS if role & bit]
    if role >> 24:
        words.append(f"smm={role >> 24}")
    return " ".join(words)
