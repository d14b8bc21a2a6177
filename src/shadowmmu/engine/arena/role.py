# SPDX-License-Identifier: GPL-2.0-only
"""The role word: with the gfn, what makes two shadow pages the same. Layout and enums are in ``role.pxd``.

Inline in the .pxd, since they run in every fault: `role_level`, `role_access`, `role_as_id`, `set_level`,
`has_gptes`, `child_role`.
"""

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
