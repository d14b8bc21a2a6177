# SPDX-License-Identifier: GPL-2.0-only
"""Text from outside - a guest's output, names, captures, messages of libraries - made safe to show.

What could steer a terminal, or show as nothing, or turn the reading direction, is written as its escape: `\\x1b`, `\\u202e`.
"""

from __future__ import annotations

import codecs
import unicodedata

_ASCII = {"✔": "ok", "✘": "no", "★": "*", "│": "|", "→": "->", "·": "-", "—": "-", "…": "...", "├": "|", "└": "`", "─": "-"}
"""The signs of our own drawings, for a terminal that has none of them."""


def plain(text: str, keep: str = "") -> str:
    """`text` with every character shown that is neither printable, nor a space, nor in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else _shown(c) for c in text)


def _shown(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _encodable(error: UnicodeError) -> tuple[str, int]:
    """For the codecs: what the terminal's encoding lacks, by its neighbour in ASCII or by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(c) or _shown(c) for c in error.object[error.start : error.end]), error.end


ENCODING_ERRORS = "shadowmmu.plain"
codecs.register_error(ENCODING_ERRORS, _encodable)
