# SPDX-License-Identifier: GPL-2.0-only
"""The access that a fault was for, in words: of a #PF's or nested fault's error code, or of VMX's exit qualification."""

from __future__ import annotations

_PRESENT, _WRITE, _USER, _RESERVED, _FETCH, _KEY, _SHADOW_STACK = 1, 2, 4, 8, 16, 32, 64
_MORE = (
    (_RESERVED, "reserved bits"), (_KEY, "a protection key forbids it"), (_SHADOW_STACK, "of a shadow stack"),
    (1 << 32, "at the final address"), (1 << 33, "in the guest's own table walk"), (1 << 48, "by the CPU itself"), (1 << 49, "private"),
)  # fmt: skip


_GVA_VALID = 1 << 7
"""In an exit qualification: VMX tells the linear address. No error code has the bit."""


def is_qualification(code: int) -> bool:
    """Whether kvm_page_fault tells an EPT violation's exit qualification in the place of an error code."""
    return bool(code & _GVA_VALID)


def access_of(code: int) -> str:
    """What an error code says (SDM vol. 3 section 4.7, APM vol. 2 section 15.25.6, and KVM's own bits)."""
    kind = "fetch" if code & _FETCH else "write" if code & _WRITE else "read"
    by = " by user code" if code & _USER and not code >> 32 else ""
    there = "present" if code & _PRESENT else "not present"
    return ", ".join((f"{kind}{by}", there, *(words for bit, words in _MORE if code & bit)))


def access_of_ept(qualification: int) -> str:
    """What an EPT violation's exit qualification says (SDM vol. 3 table 28-7)."""
    kinds = [word for bit, word in ((1, "read"), (2, "write"), (4, "fetch")) if qualification & bit]
    rights = "".join(letter if qualification >> bit & 1 else "-" for bit, letter in ((3, "r"), (4, "w"), (5, "x")))
    walk = qualification >> 7 & 3 == 1
    return ", ".join(
        (" and ".join(kinds) or "no access", "not present" if rights == "---" else f"the entry allows {rights}")
        + (("in the guest's own table walk",) if walk else ())
    )
