# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a text that may be longer than memory: a file, packed by gzip or xz or not, or standard input while it grows."""

from __future__ import annotations

import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from shadowmmu.border.limits import LINE, MIB, XZ_MEMORY
from shadowmmu.errors import BadInput

GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\0"
STDIN = Path("-")


class Chunks:
    """The bytes of a file, piece by piece, unpacked; `head` is the first piece, `read` counts those of the file itself.

    Raises BadInput for what is no file, or is broken on the way.
    """

    def __init__(self, path: Path, what: str = "trace") -> None:
        self.name = "standard input" if path == STDIN else f"{what} {path}"
        self.read = self.size = 0
        self._number = 0 if path == STDIN else self._open(path)
        first = self._piece()
        self.packed = GZIP if first.startswith(GZIP) else XZ if first.startswith(XZ) else b""
        self._pieces = self._unpacked(first)
        self.head = next(self._pieces, b"")

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        yield from self._pieces

    def _open(self, path: Path) -> int:
        try:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            found = os.fstat(number)
        except (OSError, ValueError) as error:
            raise BadInput(f"{self.name}: {getattr(error, 'strerror', None) or error}; name a file, or - for standard input") from None
        if not stat.S_ISREG(found.st_mode):
            os.close(number)
            raise BadInput(f"{self.name} is no regular file; name one, or pass it on by standard input: shadowmmu explain - < {path}")
        self.size = found.st_size
        return number

    def _piece(self) -> bytes:
        """What there is, at most a MiB; none at the end."""
        try:
            data = os.read(self._number, MIB)
        except OSError as error:
            raise BadInput(f"{self.name}: {error.strerror}; look at its path and rights") from None
        self.read += len(data)
        if not data and self._number:
            os.close(self._number)
            self._number = -1
        return data

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        pieces = self._gunzipped if self.packed == GZIP else self._unxzed if self.packed == XZ else self._plain
        try:
            yield from pieces(piece)
        except (zlib.error, lzma.LZMAError) as error:
            raise BadInput(f"{self.name} is broken: {error}; pack it anew") from None

    def _plain(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            yield piece
            piece = self._piece()

    def _gunzipped(self, piece: bytes) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(wbits=31)
        while piece:
            data = unpacker.decompress(piece, MIB)
            if data:
                yield data
            piece = unpacker.unconsumed_tail
            if unpacker.eof and (piece := unpacker.unused_data.lstrip(b"\0")):
                unpacker = zlib.decompressobj(wbits=31)
            piece = piece or self._piece()

    def _unxzed(self, piece: bytes) -> Iterator[bytes]:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        while not unpacker.eof:
            data = unpacker.decompress(piece, MIB)
            if data:
                yield data
            piece = b""
            if unpacker.needs_input and not unpacker.eof and not (piece := self._piece()):
                return


def lines_of(chunks: Chunks) -> Iterator[list[str]]:
    """All lines, some at a time. What a line has beyond the limit is dropped: it is none of a trace's."""
    rest = b""
    for chunk in chunks:
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            rest = (rest + chunk)[:LINE]
            continue
        yield [line[:LINE] for line in (rest + head).decode("utf-8", "replace").split("\n")]
        rest = tail[:LINE]
    if rest:
        yield [rest.decode("utf-8", "replace")]
