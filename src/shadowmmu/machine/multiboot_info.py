# SPDX-License-Identifier: GPL-2.0-only
"""What a boot loader tells a multiboot image: memory, command line, modules. Source: Multiboot Specification 0.6.96, section 3.3."""

import struct
from collections.abc import Sequence

INFO = 0x9500
"""Where the information goes."""
_SIZE = 116
_MEMORY_FIELDS, _COMMAND_LINE, _MODULES, _MEMORY_MAP = 1 << 0, 1 << 2, 1 << 3, 1 << 6


def multiboot_info(memory: Sequence[tuple[int, int]], line: str | None, modules: Sequence[tuple[int, int, str]]) -> bytes:
    """The structure, and behind it the memory map, the modules and the command lines.

    memory   (address, size): the first piece is the lower memory, the second the upper
    line     the image's command line; None: it is told of none, and of no modules
    modules  (start, end, command line)
    """
    (_, lower), (_, upper), *_rest = memory
    entries = b"".join(struct.pack("<IQQI", 20, base, size, 1) for base, size in memory if size > 0)
    info = bytearray(_SIZE)
    struct.pack_into("<III", info, 0, _MEMORY_FIELDS | _MEMORY_MAP, lower >> 10, max(0, upper) >> 10)
    struct.pack_into("<II", info, 44, len(entries), INFO + _SIZE)
    info += entries
    if line is not None:
        _put_command_lines(info, line, modules)
    return bytes(info)


def _put_command_lines(info: bytearray, line: str, modules: Sequence[tuple[int, int, str]]) -> None:
    lines = [text.encode() + b"\0" for text in (line, *(text for *_, text in modules))]
    table, at = len(info), len(info) + 16 * len(modules)
    info += bytes(16 * len(modules))
    struct.pack_into("<I", info, 0, struct.unpack_from("<I", info)[0] | _COMMAND_LINE | (_MODULES if modules else 0))
    struct.pack_into("<III", info, 16, INFO + at, len(modules), INFO + table)
    for number, (start, end, _) in enumerate(modules):
        struct.pack_into("<IIII", info, table + 16 * number, start, end, INFO + at + sum(map(len, lines[: number + 1])), 0)
    info += b"".join(lines)
