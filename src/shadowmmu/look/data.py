"""Types that every view shares: hexadecimal numbers, and the JSON form."""

from typing import Any

import msgspec


class Hex(int):
    """An address, an entry or a role word: JSON has it as a string, since many readers of JSON keep only 53 bits."""


def to_json(value: Any) -> bytes:
    """Structs and containers as JSON for programs, indented."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=_encode), indent=2)


def _encode(value: object) -> str:
    if isinstance(value, Hex):
        return f"{value:#x}"
    raise NotImplementedError(f"no JSON form for {type(value).__name__}")
