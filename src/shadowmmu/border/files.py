# SPDX-License-Identifier: GPL-2.0-only
"""Files that come from outside: only regular ones, never more of them than the limits say, and one line for all that is wrong."""

from __future__ import annotations

import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES
from io import BytesIO
from pathlib import Path

import msgspec

from shadowmmu.border.limits import UNPACKED, XZ_MEMORY
from shadowmmu.errors import BadInput


def read_file(path: Path, most: int, what: str, remedy: str) -> bytes:
    """The bytes of a regular file, looked at before they are read: a device or a pipe may never end.

    what, remedy    of the BadInput's line: what the file is to us, and what to do
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BadInput(f"{what} is no regular file; {remedy}")
            data = file.read(most + 1) if found.st_size <= most else b""
    except (OSError, ValueError) as error:
        raise BadInput(f"{what}: {getattr(error, 'strerror', None) or error}; {remedy}") from None
    if max(len(data), found.st_size) > most:
        raise BadInput(f"{what} has {max(len(data), found.st_size):,} bytes, no more than {most:,} are read; {remedy}")
    return data


def write_file(path: Path, data: bytes) -> None:
    """The whole file or none of it; folders that are not there are made."""
    check_place(path)
    part = path.with_name(f".{os.getpid()}.part")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:  # somebody else's of that name, or a link, is not written to
            try:
                file.write(data)
                file.close()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raises BadInput where `write_file` could not write, for those who have hours of work before it."""
    with _writing(path):
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise BadInput(f"cannot write {path}: it is no regular file; name another")
        folder = next(place for place in path.absolute().parents if place.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; name a place you may write to") from None


def gunzip(data: bytes, most: int = UNPACKED) -> bytes:
    """Raises ValueError, EOFError, OSError or zlib.error, as `parsing` knows them."""
    return _bounded(gzip.GzipFile(fileobj=BytesIO(data)).read(most + 1), most)


def unxz(data: bytes, most: int = UNPACKED) -> bytes:
    """One stream of xz; raises ValueError, EOFError or lzma.LZMAError."""
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    unpacked = _bounded(unpacker.decompress(data, most + 1), most)
    if not unpacker.eof:
        raise EOFError("it is cut off")
    if unpacker.unused_data:
        raise ValueError(f"{len(unpacker.unused_data)} bytes follow its end")
    return unpacked


def _bounded(unpacked: bytes, most: int) -> bytes:
    if len(unpacked) > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes")
    return unpacked


_BROKEN: tuple[type[Exception], ...] = (
    ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, RuntimeError,
    zlib.error, lzma.LZMAError, msgspec.MsgspecError,
)  # fmt: skip
"""What parsers raise."""


@contextmanager
def parsing(wrong: str, remedy: str, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What a parser raises becomes the line `wrong: what it says; remedy`. `also`: errors of its own."""
    try:
        yield
    except RecursionError:
        raise BadInput(f"{wrong}: it nests too deeply; {remedy}") from None
    except MemoryError:
        raise BadInput(f"{wrong}: it needs more memory than there is; {remedy}") from None
    except OverflowError:
        raise BadInput(f"{wrong}: a number in it is larger than any file or memory; {remedy}") from None
    except KeyError as error:
        raise BadInput(f"{wrong}: it lacks {error}; {remedy}") from None
    except _BROKEN + also as error:
        raise BadInput(f"{wrong}: {error}; {remedy}") from None


def inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`, links followed. Raises ValueError if that leads out of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} lies outside its folder")
    return path
