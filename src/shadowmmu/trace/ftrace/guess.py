# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel a text is of: what only some kernels print narrows it down, from both sides."""

from __future__ import annotations

import re

import msgspec

Version = tuple[int, int]
NEWEST: Version = (7, 3)
RWUX: Version = (7, 2)
"""The first kernel whose roles have four bits of rights."""
_SIGNS: tuple[tuple[re.Pattern[str], Version, Version], ...] = tuple(
    (re.compile(pattern), since, until)
    for pattern, since, until in (
        (r"sp gfn [0-9a-f]+ \d/\d q\d", (2, 6), (2, 6)),
        (r"\bsp gfn [0-9a-f]+ \d+(?: pae)? q\d[^\n]*![a-z]*nxe root|\bsp gfn [0-9a-f]+ \d+(?: pae)? q\d[^\n]* nxe root", (3, 0), (3, 10)),
        (r"sp gen [0-9a-f]+ gfn [0-9a-f]+ \d+(?: pae)? q\d", (3, 11), (4, 12)),
        (r"sp gen [0-9a-f]+ gfn [0-9a-f]+ l\d(?: pae)? q\d", (4, 13), (5, 0)),
        (r"l\d [48]-byte q\d(?: direct)? [-wux]{3} ", (5, 1), (7, 1)),
        (r"l\d [48]-byte q\d(?: direct)? [-rwux]{4} ", (7, 2), NEWEST),
        (r"new sp gfn [0-9a-f]+ \d+ q\d(?: direct)? [-wux]{3} invalid ", (7, 2), NEWEST),
        (r"kvm_mmu_split_huge_page:", (5, 18), NEWEST),
        (r"kvm_page_fault:\s+vcpu \d+ rip 0x", (5, 19), NEWEST),
        (r"kvm_page_fault:\s+address", (2, 6), (5, 19)),
        (r"kvm_tdp_mmu_spte_changed:", (5, 12), NEWEST),
        (r"fast_page_fault:\s+vcpu \d+ gva", (3, 5), (5, 15)),
        (r"fast_page_fault:\s+gva", (5, 16), NEWEST),
        (r"kvm_mmu_invalidate_zap_all_pages:", (3, 11), (5, 3)),
        (r"kvm_mmu_zap_all_fast:", (5, 4), NEWEST),
        (r"kvm_mmu_set_spte:|kvm_mmu_spte_requested:", (4, 14), NEWEST),
        (r"\[\d{3}\] [.a-zA-Z]{3}[.\d] +\d+\.", (2, 6), (5, 16)),
        (r"kvm_exit:\s+reason", (2, 6), (5, 9)),
        (r"kvm_exit:\s+vcpu \d+ reason", (5, 10), NEWEST),
        (r"\[\d{3}\] [.a-zA-Z][.a-zA-Z][.a-zA-Z][.\d][.\d] +\d+\.", (5, 16), NEWEST),
        (r"role=\d+[^\n]* mmu_valid_gen=|mmu_valid_gen=[^\n]* role=\d+", (3, 11), NEWEST),
    )
)
"""Pattern, first and last kernel that prints it; backports of distributions are earlier than these."""


_NEW_PAGE = re.compile(r"kvm_mmu_get_page:[^\n]* role=(0x[0-9a-f]{1,8}|\d{1,10})\b[^\n]* created=(?:0x)?1\b")
_BIT_11 = 1 << 11
"""`invalid`, which no new page is, and since 7.2 execute; before 3.19 nothing."""


class Kernel(msgspec.Struct, frozen=True):
    """The version that texts are read by, and what is known of it: the earliest and latest that would have printed them."""

    version: Version
    since: Version
    until: Version
    said: bool = False

    @property
    def words(self) -> str:
        if self.said:
            return f"{self.version[0]}.{self.version[1]}, as you say"
        since, until = (".".join(map(str, version)) for version in (self.since, self.until))
        return f"{since} to {until}" if self.since != self.until else since


def guess(text: str) -> Kernel:
    """Of the beginning of a text."""
    since, until = (2, 6), NEWEST
    for pattern, first, last in _SIGNS:
        if pattern.search(text):
            since, until = max(since, first), min(until, last)
    if any(int(word, 0) & _BIT_11 for word in _NEW_PAGE.findall(text) if word == "0" or word[0] != "0" or word[1:2] == "x"):
        since = max(since, RWUX)
    if since > until:  # a backport: what was printed last in time is there for certain
        until = NEWEST
    version = max(since, min(until, (6, 1)))
    return Kernel(version, since, until)


def said(version: Version) -> Kernel:
    return Kernel(version, version, version, said=True)


_PLUGIN_TOP = re.compile(r"sp gfn [0-9a-f]+ [45] q\d[^\n]* (!?)pae !?nxe !?wp")


def plugin_is_right(text: str, kernel: Kernel) -> bool:
    """trace-cmd's plugin knows bit 4 as cr4_pae, which it was before 5.17: tables of level 4 have entries of 8 bytes either way."""
    found = _PLUGIN_TOP.search(text)
    if found is not None and not kernel.said:
        return found[1] == ""
    return kernel.version < (5, 17)
