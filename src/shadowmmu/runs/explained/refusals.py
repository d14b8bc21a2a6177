# SPDX-License-Identifier: GPL-2.0-only
"""Why a walk of the guest's tables was refused, as the entries say that it read: which bit, and what that means.

A trace tells the error code and the entries. What it does not tell, MAXPHYADDR, EFER.NXE, CR0.WP, CPUID, is named where it decides:
the walk went by what the MMU's role and masks have, and a guest that has it otherwise met a stale role.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

PRESENT, WRITE, USER, RESERVED, FETCH, KEY = 1, 2, 4, 8, 16, 32
"""Bits of a #PF error code (SDM vol. 3 section 4.7); the first three are bits of an entry, too."""
LARGE, GLOBAL, NX = 1 << 7, 1 << 8, 1 << 63
LEAST_MAXPHYADDR = 36

Entry = tuple[int, int]
"""Level and value."""


def why_refused(entries: Sequence[Entry], code: int) -> str:
    """What in the entries of a walk, from the top down, explains its error code; empty, if nothing does.

    `code`: the #PF error code that the walk ended with. A code without P needs no explanation, the last entry is absent.
    """
    if not entries or not code & PRESENT:
        return ""
    level, pte = entries[-1]
    if code & RESERVED:
        bits = " or ".join(_reserved(level, pte, entries[0][0]))
        return f"level-{level} entry {pte:x}: {bits}" if bits else ""
    if code & KEY:
        return f"level-{level} entry {pte:x}: its protection key {pte >> 59 & 15} forbids the access (PKRU)"
    return _rights(_that_have_rights(entries), code)


def _reserved(level: int, pte: int, top: int) -> Iterator[str]:
    """The bits that may be reserved in a present entry. SDM vol. 3 tables 4-5 to 4-20."""
    if top == 2:
        yield from ["bits 21 to 13 of a 4 MiB page: PSE-36 is not offered"] if pte & LARGE and pte & 0x3FE000 else []
        return
    if pte & NX:
        yield "bit 63 (NX), which is reserved without EFER.NXE"
    if high := pte >> LEAST_MAXPHYADDR & (1 << 52 - LEAST_MAXPHYADDR) - 1:
        yield f"address bit {high.bit_length() - 1 + LEAST_MAXPHYADDR}, which is reserved if MAXPHYADDR is not larger"
    if top == 3 and level < 3 and pte >> 52 & 0x7FF:
        yield "bits 62 to 52, which PAE paging reserves"
    yield from _reserved_by_level(level, pte, top)


def _reserved_by_level(level: int, pte: int, top: int) -> Iterator[str]:
    if level == top == 3:
        yield from ["bits 8 to 5, 2 or 1, which a PDPTE of PAE paging reserves"] if pte & 0x1E6 else []
    elif level > 3:
        yield from ["bit 7, which is reserved at this level"] if pte & LARGE else []
        yield from ["bit 8, which AMD reserves at this level"] if pte & GLOBAL else []
    elif level > 1 and pte & LARGE:
        if level == 3:
            yield "bit 7 (PS), a 1 GiB page, which this guest's CPUID does not offer (pdpe1gb)"
        if pte & (1 << 12 + 9 * (level - 1)) - (1 << 13):
            yield f"bits {11 + 9 * (level - 1)} to 13, below the frame of a large page"


def _that_have_rights(entries: Sequence[Entry]) -> list[Entry]:
    """All but a PDPTE of PAE paging."""
    return list(entries[1:] if entries[0][0] == 3 else entries)


def _rights(entries: Sequence[Entry], code: int) -> str:
    user = all(pte & USER for _, pte in entries)
    if code & USER and not user:
        return f"{_which(entries, USER)} lacks U: a page of the supervisor's"
    if code & FETCH:
        if forbids := [entry for entry in entries if entry[1] & NX]:
            return f"level-{forbids[0][0]} entry {forbids[0][1]:x} has NX"
        return "a supervisor's fetch from a user page: only SMEP refuses it" if user and not code & USER else ""
    if code & WRITE and (lacks := _which(entries, WRITE)):
        return f"{lacks} lacks W" + ("" if code & USER else ", which binds the supervisor with CR0.WP alone: the walk's role has cr0_wp")
    return "a supervisor's access to a user page: only SMAP refuses it, without EFLAGS.AC" if user and not code & USER else ""


def _which(entries: Iterable[Entry], bit: int) -> str:
    return next((f"level-{level} entry {pte:x}" for level, pte in entries if not pte & bit), "")
