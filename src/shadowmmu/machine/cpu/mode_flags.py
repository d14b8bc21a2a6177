# SPDX-License-Identifier: GPL-2.0-only
"""The mode flags that Unicorn's processor derives from its segments, in protected mode, not virtual-8086.

They lie in the saved context, and whoever changes CS or SS there changes them. `unicorn_layout` looks whether they are so.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t


def mode_flags(before: uint32_t, code: uint32_t, stack: uint32_t, bases: uint64_t, cpl: uint8_t, long_mode: cython.bint) -> uint32_t:
    """`code`, `stack`: the flags of CS and SS; `bases`: those of DS, ES and SS, or'ed."""
    derived: uint32_t = ModeFlag.CPL | ModeFlag.CODE_32 | ModeFlag.STACK_32 | ModeFlag.ADD_BASES | ModeFlag.CODE_64
    found: uint32_t = (before & ~derived) | cpl
    if stack & SegmentFlag.BIG:
        found |= ModeFlag.STACK_32
    if long_mode and code & SegmentFlag.LONG:
        return found | ModeFlag.CODE_64 | ModeFlag.CODE_32
    if code & SegmentFlag.BIG:
        found |= ModeFlag.CODE_32
    if not code & SegmentFlag.BIG or bases:
        found |= ModeFlag.ADD_BASES
    return found
