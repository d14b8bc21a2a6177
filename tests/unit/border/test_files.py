# SPDX-License-Identifier: GPL-2.0-only
"""Files from outside: what is no regular file, too large, a bomb, or elsewhere is refused before it costs anything."""

import gzip
import lzma
import os
import re
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shadowmmu.border.files import check_place, gunzip, inside, parsing, read_file, unxz, write_file
from shadowmmu.errors import BadInput

MIB = 1 << 20
NULL = "null (byte|character)"  # as Python says it before 3.14, and since


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        read_file(path, MIB, "the file", "name another")
    return str(error.value)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("/dev/stdin")):
        assert refused(path) in ("the file is no regular file; name another", "the file: Is a directory; name another")
    assert refused(tmp_path / "none") == "the file: No such file or directory; name another"
    assert "symbolic links" in refused(tmp_path / "loop")
    assert re.search(NULL, refused(Path("a\0b")))
    assert "too long" in refused(Path("a" * 5000))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 36)
    assert refused(tmp_path / "sparse") == "the file has 68,719,476,736 bytes, no more than 1,048,576 are read; name another"
    (tmp_path / "whole").write_bytes(bytes(MIB))
    assert len(read_file(tmp_path / "whole", MIB, "the file", "name another")) == MIB


@pytest.mark.parametrize(("pack", "unpack"), [(gzip.compress, gunzip), (lzma.compress, unxz)])
def test_bombs_and_broken_archives(pack, unpack) -> None:
    assert unpack(pack(bytes(1000)), 1000) == bytes(1000)
    with pytest.raises(BadInput, match="it: it unpacks to more than 1,048,576 bytes; copy it"), parsing("it", "copy it"):
        unpack(pack(bytes(64 * MIB)), MIB)
    for broken in (b"x", pack(b"abc" * 1000)[:-9], bytes(100)):
        with pytest.raises(BadInput, match="; copy it"), parsing("it", "copy it"):
            unpack(broken, MIB)


def test_an_xz_file_may_not_ask_for_gigabytes_or_go_on_behind_its_end() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    with pytest.raises(BadInput, match="Memory usage limit"), parsing("it", "copy it"):
        unxz(lzma.compress(b"x", filters=filters), MIB)
    with pytest.raises(BadInput, match="bytes follow its end"), parsing("it", "copy it"):
        unxz(lzma.compress(b"x") + b"more", MIB)


def nested(depth: int) -> list:
    return [nested(depth - 1)]


def test_what_parsers_raise_is_one_line() -> None:
    for parse, said in (
        (lambda: nested(1 << 30), "it nests too deeply"),
        (lambda: {}["name"], "it lacks 'name'"),
        (lambda: int("9" * 5000), "Exceeds the limit"),
        (lambda: bytes(1 << 62), "it needs more memory"),
        (lambda: bytes(1 << 64), "a number in it is larger than any file or memory"),
    ):
        with pytest.raises(BadInput, match=f"^it: {said}.*; copy it$"), parsing("it", "copy it"):
            parse()


def test_parts_are_inside_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert inside(folder, "a/../b") == folder / "b"
    for name in ("../secret", "/etc/passwd", "link", "a/../../secret"):
        with pytest.raises(ValueError, match="outside its folder"):
            inside(folder, name)


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """As on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "new/one", b"first")
    assert not stat.S_IMODE((tmp_path / "new/one").stat().st_mode) & 0o111
    with no_larger_than(2), pytest.raises(BadInput, match=r"cannot write .*one: File too large; name a place"):
        write_file(tmp_path / "new/one", b"second")
    assert (tmp_path / "new/one").read_bytes() == b"first" and len(list((tmp_path / "new").iterdir())) == 1
    with pytest.raises(BadInput, match="no regular file"):
        write_file(tmp_path, b"x")


def test_a_link_that_lies_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / f".{os.getpid()}.part").symlink_to("other")
    with pytest.raises(BadInput, match=r"cannot write .*one: File exists"):
        write_file(tmp_path / "one", b"x")
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_a_place_is_looked_at_before_the_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"kept")
    check_place(tmp_path / "file")
    check_place(tmp_path / "not/yet/there")
    wrong = {"pipe": "no regular file", ".": "no regular file", "file/x": "Not a directory", "file/x/y": "Not a directory"}
    for path, said in (wrong | {"a" * 5000: "too long", "\0": NULL}).items():
        with pytest.raises(BadInput, match=f"cannot write .*{said}"):
            check_place(tmp_path / path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]
