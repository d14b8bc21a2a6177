# SPDX-License-Identifier: GPL-2.0-only
"""Just enough decoding to know which emulated instructions write a control register."""

from __future__ import annotations

LEGACY_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


def control_register_written(code: bytes) -> int | None:
    """The register that `MOV CRn, r` (0F 22 /r, APM vol. 3) writes; None: another instruction."""
    at = 0
    while at < len(code) and code[at] in LEGACY_PREFIXES:
        at += 1
    high = 0
    if at < len(code) and 0x40 <= code[at] <= 0x4F:
        high = 8 if code[at] & 4 else 0
        at += 1
    if code[at : at + 2] != b"\x0f\x22" or len(code) < at + 3:
        return None
    return code[at + 2] >> 3 & 7 | high


def immediate_loaded(before: bytes, code: bytes) -> int | None:
    """The constant that `MOV r, imm` (B8+r) just before `MOV CRn, r` puts into its register; None: other code stands there."""
    at = code.find(b"\x0f\x22")
    if at < 0 or len(code) < at + 3:
        return None
    opcode = 0xB8 | code[at + 2] & 7
    if len(before) >= 10 and before[-10] & 0xF8 == 0x48 and before[-9] == opcode:
        return int.from_bytes(before[-8:], "little")
    return int.from_bytes(before[-4:], "little") if len(before) >= 5 and before[-5] == opcode else None
