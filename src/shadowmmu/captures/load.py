# SPDX-License-Identifier: GPL-2.0-only
"""Captures as files: MessagePack in xz, looked at as a whole before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shadowmmu.border.files import parsing, read_file, unxz, write_file
from shadowmmu.border.limits import CAPTURE
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.validate import validate_capture
from shadowmmu.errors import BadInput
from shadowmmu.trace.binary import compress
from shadowmmu.trace.events import GRAMMAR_VERSION
from shadowmmu.trace.text import HEADER

SUFFIX = ".capture"
REMEDY = "copy or pack it anew"
_OTHERS = {
    HEADER.encode(): "the text of a trace, which has no guest, tables or counters to hold a replay against; name the capture it is of",
    b"\x1f\x8b": "a gzip file; of the capture kit's output name the folder that holds captures/ and guests/, with --kit",
    b"\x17\x08\x44tracing": "a file of trace-cmd's; captures are made by the capture kit (capture/README.md)",
    b"\x7fELF": "an ELF file; shadowmmu run runs guests",
}
"""What else a file may be, by its first bytes."""


class _Head(msgspec.Struct):
    """What tells whether the rest can be read."""

    grammar: int


_head = msgspec.msgpack.Decoder(_Head)
_decoder = msgspec.msgpack.Decoder(Capture)
_encoder = msgspec.msgpack.Encoder()


def save(capture: Capture, path: Path) -> None:
    write_file(path, compress(_encoder.encode(capture)))


def load(path: Path) -> Capture:
    packed = read_file(path, CAPTURE, f"capture {path}", REMEDY)
    other = next((what for start, what in _OTHERS.items() if packed.startswith(start)), "")
    if other:
        raise BadInput(f"{path} is no capture, it is {other}")
    with parsing(f"{path} is no capture, or a broken one", REMEDY):
        data = unxz(packed)
        grammar = _head.decode(data).grammar
        capture = _decoder.decode(data) if grammar == GRAMMAR_VERSION else None
    if capture is None:
        raise BadInput(f"{path} has events of grammar {grammar}, known is {GRAMMAR_VERSION}: pack it anew from the kit's output")
    validate_capture(capture, str(path))
    return capture


def checked(capture: Capture) -> Capture:
    """A capture put together from other files, with its types looked at as in `load`. Raises msgspec.ValidationError or BadInput."""
    typed = _decoder.decode(_encoder.encode(capture))
    validate_capture(typed, typed.name)
    return typed
