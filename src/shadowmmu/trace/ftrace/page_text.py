# SPDX-License-Identifier: GPL-2.0-only
"""The text of a shadow page (KVM_MMU_PAGE_PRINTK), in the seven forms it had since 2.6.31 and as trace-cmd's plugin words it.

1  sp gfn 3a22e 1/4 q3 direct --x !pge !nxe root 6 sync                          2.6.3x
2  sp gfn 3a22e 1 pae q0 wux !nxe root 0 sync                                    3.0 to 3.10
3  sp gen 1f gfn 3a22e 1 pae q0 wux !nxe root 0 sync                             3.11 to 4.12
4  sp gen 1f gfn 3a22e l1 pae q0 wux !nxe ad root 0 sync                         4.13 to 5.0
5  sp gen 0 gfn 3a22e l1 8-byte q0 wux nxe ad root 0 sync                        5.1 to 5.16: bit 4 tells of 8 bytes
6  the same                                                                      5.17 to 7.1: bit 4 tells of 4 bytes
7  sp gen 0 gfn 3a22e l1 8-byte q0 rwux nxe ad root 0 sync                       rights with read, in that order
plugin  new sp gfn 3a22e 1 q0 wux pae !nxe !wp root 0 sync                       trace-cmd report, of kvm_mmu_get_page
        1 q0 wux pae !nxe !wp root 0 sync                                        of the others
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from shadowmmu.engine.arena.role import Role, RoleShift
from shadowmmu.trace.ftrace.guess import RWUX
from shadowmmu.trace.layouts import NO_READ, layout_of

_PAGE = re.compile(
    r"\s*(?:(new|existing) +)?sp (?:gen ([0-9a-f]{1,16}) )?gfn ([0-9a-f]{1,16}) (.{1,90}?) "
    r"root (\d{1,10}) (sync|unsync)\b\s*(new|existing)?"
)
_ROLE = re.compile(
    r"(l?)(\d{1,2})(?:/(\d))?(?: (!?pae)| ([48])-byte)? q(\d)( direct)? "
    r"([-rwux]{3,4})( invalid)?(?: (!?)pae)?(?: !?pge)?(?: (!?)nxe)?(?: (!?)wp)?( smep)?( smap)?( smm)?(?: (!?)ad)?"
)
UNNAMED = re.compile(r"\s*\d{1,2} q\d(?: direct)? [-rwux]{3,4}\b.* root \d{1,10} (?:un)?sync\b")
"""The plugin's words for a page that is zapped or synced: its role, and not which page it is."""
_LETTERS = {"x": 1, "w": 2, "u": 4}
PLUGIN = 8
"""The number of the plugin's form."""


class PageText(msgspec.Struct, frozen=True):
    """What such a text says. `created`: None if it does not say."""

    form: int
    gfn: int
    role: int
    gen: int
    root_count: int
    unsync: bool
    created: bool | None


def read_page(text: str, bit_4_is_narrow: bool = True, shifted: bool = False) -> PageText | None:
    """The page; None: this is no page's text, or not all of it. Of the plugin's: `bit_4_is_narrow`: how to take its "pae"; `shifted`:
    the kernel's rights have a fourth bit, so that each of its words behind the first three says what the bit before it means."""
    found = _PAGE.match(text)
    if found is None:
        return None
    before, gen, gfn, words, root, sync, behind = found.groups()
    told = _role(words, gen is not None, bit_4_is_narrow, shifted)
    if told is None:
        return None
    form, role = told
    how = before or behind
    generation = 0 if gen is None else int(gen, 16 if form < 5 else 10 if gen.isdecimal() else 16)
    return PageText(form, int(gfn, 16), role, generation, int(root), sync == "unsync", how == "new" if how else None)


@lru_cache(1024)
def _role(words: str, has_gen: bool, bit_4_is_narrow: bool, shifted: bool) -> tuple[int, int] | None:
    """The text's form and the role that it words; a trace has few of them, and each many times."""
    found = _ROLE.fullmatch(words)
    if found is None:
        return None
    small_l, level, glevels, pae, size, quadrant, direct, access, invalid, plugin_pae, nx, wp, smep, smap, smm, ad = found.groups()
    form = _form(glevels, plugin_pae, size, access, small_l, has_gen)
    if form == 1:
        narrow = glevels == "2"
    elif form == PLUGIN:
        narrow = (plugin_pae == "") == bit_4_is_narrow
    else:
        narrow = size == "4" if size else pae is None and not direct
    if form == PLUGIN and shifted:
        bits = ("x" in access, "w" in access, "u" in access, bool(invalid), nx == "", wp == "", bool(smep), bool(smap))
        word = (
            int(level) & 15 | narrow << 4 | (int(quadrant) & 3) << 5 | bool(direct) << 7 | sum(bit << 8 + at for at, bit in enumerate(bits))
        )
        return form, layout_of(RWUX).role(word | bool(smm) << 24)
    role = int(level) & 15 | (int(quadrant) & 3) << int(RoleShift.QUADRANT_SHIFT) | _access(access)
    role |= (narrow and int(Role.HAS_4_BYTE_GPTE)) | (direct is not None and int(Role.DIRECT)) | (invalid is not None and int(Role.INVALID))
    role |= (nx == "" and int(Role.EFER_NX)) | (wp == "" and int(Role.CR0_WP)) | (ad == "!" and int(Role.AD_DISABLED))
    role |= (
        (smep is not None and int(Role.SMEP_ANDNOT_WP)) | (smap is not None and int(Role.SMAP_ANDNOT_WP)) | (smm is not None and 1 << 24)
    )
    return form, role


def _form(glevels: str | None, plugin_pae: str | None, size: str | None, access: str, small_l: str, has_gen: bool) -> int:
    if glevels:
        return 1
    if plugin_pae is not None:
        return PLUGIN
    if size:
        return 7 if len(access) == 4 else 6
    return 4 if small_l else 3 if has_gen else 2


def _access(letters: str) -> int:
    """Execute, write, user in the role's place; read is told by the letters of four only."""
    access = sum(bit for letter, bit in _LETTERS.items() if letter in letters) << int(RoleShift.ACCESS_SHIFT)
    return access | (NO_READ if len(letters) == 4 and "r" not in letters else 0)
