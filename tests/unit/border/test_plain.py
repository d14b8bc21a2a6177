# SPDX-License-Identifier: GPL-2.0-only
"""Text made safe to show: nothing that steers a terminal, hides or turns the reading direction is left."""

import sys
import unicodedata

import pytest

from shadowmmu.border.plain import ENCODING_ERRORS, plain


def test_whatever_does_not_show_is_escaped() -> None:
    shown = set(plain("".join(map(chr, range(sys.maxunicode + 1)))))
    assert not {c for c in shown if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")}
    assert {"★", "ü", "\N{NO-BREAK SPACE}", "語"} <= shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\u202egnp\u2066", "\\u202egnp\\u2066"),
        ("\udcff", "\\udcff"),
        ("★ l3 → l2, ü", "★ l3 → l2, ü"),
    ],
)
def test_how_it_is_shown(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(text, text) == text


def test_an_encoding_that_lacks_our_signs() -> None:
    assert "✔ l3 → ü€".encode("ascii", ENCODING_ERRORS) == b"ok l3 -> \\xfc\\u20ac"
    assert "ü €".encode("latin-1", ENCODING_ERRORS) == b"\xfc \\u20ac"
