# SPDX-License-Identifier: GPL-2.0-only
"""The compact form: MessagePack with the field names, compressed. Hundreds of events fit into a few kilobytes."""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from typing import Annotated

import msgspec

from shadowmmu.border.files import parsing, unxz
from shadowmmu.border.limits import Events
from shadowmmu.errors import BadInput
from shadowmmu.trace.events import GRAMMAR_VERSION, AnyEvent


class TraceFile(msgspec.Struct):
    """What a file holds."""

    grammar: int
    events: Annotated[list[AnyEvent], Events]


_decoder = msgspec.msgpack.Decoder(TraceFile)
_encoder = msgspec.msgpack.Encoder()


def compress(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def write_binary(events: Sequence[AnyEvent]) -> bytes:
    return compress(_encoder.encode(TraceFile(GRAMMAR_VERSION, list(events))))


def read_binary(data: bytes) -> list[AnyEvent]:
    with parsing(f"this is no trace of grammar {GRAMMAR_VERSION}", "write it anew with this version"):
        file = _decoder.decode(unxz(data))
    if file.grammar != GRAMMAR_VERSION:
        raise BadInput(f"this trace has grammar {file.grammar}, known is {GRAMMAR_VERSION}: write it anew with this version")
    return file.events
