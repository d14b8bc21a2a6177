"""Captures as files: MessagePack in xz, looked at as a whole before anything is made of it."""

from __future__ import annotations

import lzma
from pathlib import Path

import msgspec

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.validate import validate_capture
from shadowmmu.errors import BadInput
from shadowmmu.trace.binary import compress
from shadowmmu.trace.events import GRAMMAR_VERSION

SUFFIX = ".capture"


class _Head(msgspec.Struct):
    """What tells whether the rest can be read."""

    grammar: int


_head = msgspec.msgpack.Decoder(_Head)
_decoder = msgspec.msgpack.Decoder(Capture)
_encoder = msgspec.msgpack.Encoder()


def save(capture: Capture, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(compress(_encoder.encode(capture)))
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}; name a folder you may write to") from error


def load(path: Path) -> Capture:
    try:
        data = lzma.decompress(path.read_bytes())
        grammar = _head.decode(data).grammar
        capture = _decoder.decode(data) if grammar == GRAMMAR_VERSION else None
    except (OSError, EOFError, lzma.LZMAError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is no capture, or a broken one: {error}; copy or pack it anew") from error
    if capture is None:
        raise BadInput(f"{path} has events of grammar {grammar}, known is {GRAMMAR_VERSION}: pack it anew from the kit's output")
    validate_capture(capture, str(path))
    return capture


def checked(capture: Capture) -> Capture:
    """A capture put together from other files, with its types looked at as in `load`. Raises msgspec.ValidationError or BadInput."""
    typed = _decoder.decode(_encoder.encode(capture))
    validate_capture(typed, typed.name)
    return typed
