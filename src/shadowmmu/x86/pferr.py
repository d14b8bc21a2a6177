# SPDX-License-Identifier: GPL-2.0-only
"""#PF error-code bits (`Pferr`, declared in ``pferr.pxd``) and their short text."""

_FLAGS = ((0x1, "P"), (0x2, "W"), (0x4, "U"), (0x8, "RSVD"), (0x10, "F"), (0x20, "PK"))


def describe(error_code: int) -> str:
    """The error code as the kernel's traces print it: flag names joined by ``|``, the rest in hex."""
    names = [name for bit, name in _FLAGS if error_code & bit]
    rest = error_code & ~sum(bit for bit, _ in _FLAGS)
    return "|".join(names + ([hex(rest)] if rest else []))
