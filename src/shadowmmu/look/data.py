# SPDX-License-Identifier: GPL-2.0-only
"""Types that every view shares: hexadecimal numbers, and the JSON form."""

import json
import re
from typing import Any

import msgspec


class Hex(int):
    """An address, an entry or a role word: JSON has it as a string, since many readers of JSON keep only 53 bits."""


def to_builtins(value: Any) -> Any:
    """Structs and containers as dictionaries, lists, strings and numbers."""
    return msgspec.to_builtins(value, enc_hook=_encode)


def to_json(value: Any) -> str:
    """The same as JSON for programs: indented, and in ASCII, so that nothing in it can steer a terminal."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value, enc_hook=_encode), indent=2).decode()
    except UnicodeEncodeError:  # half a surrogate pair, of a file's name that is no UTF-8
        return json.dumps(to_builtins(value), indent=2)
    return re.sub(r"[^\n -~]", lambda found: json.dumps(found[0])[1:-1], text)


def _encode(value: object) -> str:
    if isinstance(value, Hex):
        return f"{value:#x}"
    raise NotImplementedError(f"no JSON form for {type(value).__name__}")
