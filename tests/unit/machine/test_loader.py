# SPDX-License-Identifier: GPL-2.0-only
"""Guests from TOML and images: what is loaded where, and that bad input gives one clear error."""

import struct
from pathlib import Path

import pytest

from shadowmmu.engine.face.types import GuestMemoryError
from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import Guest, Piece, load_bytes, load_image, read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Reg

MAGIC = 0x1BADB002
TOML = 'name = "x"\nimage = "x.img"\n'


def header(flags: int, *fields: int) -> bytes:
    return struct.pack("<III", MAGIC, flags, -(MAGIC + flags) & 0xFFFFFFFF) + b"".join(struct.pack("<I", f) for f in fields)


def guest(**fields: object) -> Guest:
    return Guest(**{"name": "x", "image": "x.img", **fields})  # type: ignore[arg-type]


# --- TOML


def test_a_guest_from_toml(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(TOML + 'mode = "pae"\nfeatures = ["nx", "smep"]\nmemory_mib = 16\nexpect = "DONE"\n')
    found = read_guest(tmp_path / "x.toml")
    assert (found.mode, found.features, found.memory_mib, found.expect) == ("pae", ("nx", "smep"), 16, "DONE")
    assert found.path == tmp_path / "x.img"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not TOML"),
        ("image = 'x.img'", "missing required field `name`"),
        (TOML + "memory_mib = 'much'", "Expected `int`, got `str` - at `$.memory_mib`"),
        (TOML + "memory_mib = 0", "`$.memory_mib`"),
        (TOML + "mode = 'fast'", "`$.mode`"),
        (TOML + "features = [1]", "`$.features[0]`"),
        (TOML + "features = ['pku']", "this machine has no pku"),
        (TOML + "colour = 'red'", "unknown field `colour`"),
        (TOML + f"load = {'9' * 5000}", "is not TOML: Exceeds the limit"),
        (TOML + f"load = 0x{'f' * 5000}", "; mend that field"),
        (TOML + f"features = {'[' * 30_000}", "is not TOML: it nests too deeply; mend that line"),
        (TOML + f"features = {'{a=' * 10_000}", "is not TOML: it nests too deeply; mend that line"),
        (TOML + "#" * 70_000, "has 70,027 bytes, no more than 65,536 are read"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_guest(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.toml: No such file or directory; name a TOML file"):
        read_guest(tmp_path / "nothing.toml")
    with pytest.raises(BadInput, match=r"x\.img of guest x: No such file or directory; build it"):
        load_image(guest(directory=str(tmp_path)))


def test_a_bare_image_is_a_guest(tmp_path: Path) -> None:
    (tmp_path / "mine.img").write_bytes(header(0))
    assert read_guest(tmp_path / "mine.img").name == "mine"


# --- flat images


def test_a_flat_image_starts_in_real_mode() -> None:
    loaded = load_bytes(guest(format="flat"), b"\xf4")
    assert loaded.pieces == ((0x7C00, b"\xf4", 1),)
    assert (loaded.state.rip, loaded.cr0 & 1, loaded.state.cs.base) == (0x7C00, 0, 0)


def test_a_flat_image_in_protected_mode() -> None:
    loaded = load_bytes(guest(format="flat", load=0x100000, entry=0x100010, start="protected"), b"\xf4" * 32)
    assert (loaded.state.rip, loaded.cr0 & 1, loaded.state.cs.limit) == (0x100010, 1, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("fields", "image", "message"),
    [
        ({}, b"", "is empty; build it"),
        ({"load": 0x200000}, b"\xf4", "out of reach in real mode"),
        ({"load": 0x3FFFFF0, "start": "protected"}, b"\xf4" * 32, "raise memory_mib or link it lower"),
    ],
)
def test_bad_flat_images(fields: dict[str, object], image: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_bytes(guest(format="flat", memory_mib=64, **fields), image)


# --- multiboot


def test_address_fields() -> None:
    image = b"junk" + header(1 << 16, 0x100004, 0x100000, 0x100028, 0x101000, 0x100024) + b"\xf4" * 16
    loaded = load_bytes(guest(), image)
    info, piece = loaded.pieces
    assert (piece.gpa, piece.data, piece.size) == (0x100000, image[:0x28], 0x1000)
    assert (loaded.state.rip, loaded.state.gpr[Reg.RAX], loaded.state.gpr[Reg.RBX]) == (0x100024, 0x2BADB002, info.gpa)
    flags, lower, upper = struct.unpack_from("<III", info.data)
    assert (flags & 0x41, lower, upper) == (0x41, 640, 31 * 1024)


def elf64(entry: int = 0x100000, **fields: int) -> bytes:
    """A 64-bit ELF executable of one segment; `fields`: what its header of the segment has otherwise."""
    code = header(0) + b"\xf4"
    start = struct.pack("<4sBBB9x", b"\x7fELF", 2, 1, 1) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = {"offset": 120, "vaddr": 0x100000, "paddr": 0x100000, "filesz": len(code), "memsz": len(code), "align": 4, **fields}
    return start + struct.pack("<II6Q", 1, 7, *segment.values()) + code


def elf(machine: int = 3, address: int = 0x100000, segments: int = 1, entry: int = 0x10000C) -> bytes:
    """A 32-bit ELF executable of one segment, linked at 0xC0000000, that holds a multiboot header."""
    code = header(0) + b"\xf4"
    start = struct.pack("<4sBBB9x", b"\x7fELF", 1, 1, 1)
    start += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, entry, 52, 0, 0, 52, 32, segments, 0, 0, 0)
    program_header = struct.pack("<8I", 1, 84, 0xC0000000, address, len(code), len(code) + 100, 7, 4)
    return start + (program_header if segments else bytes(32)) + code


def test_elf() -> None:
    loaded = load_bytes(guest(), elf())
    assert loaded.pieces[1].gpa == 0x100000, "the physical address counts"
    assert loaded.pieces[1].size == len(loaded.pieces[1].data) + 100
    assert loaded.state.rip == 0x10000C, "no virtual address of its own: taken as physical"


def test_an_elf_entry_is_virtual() -> None:
    """A kernel that is loaded at 1 MiB and linked at 3 GiB starts where its entry point has been loaded."""
    assert load_bytes(guest(), elf(entry=0xC000000C)).state.rip == 0x10000C
    assert load_bytes(guest(), elf(address=0x200000, entry=0xC0000000)).state.rip == 0x200000
    assert load_bytes(guest(), elf(entry=0xD0000000)).state.rip == 0xD0000000, "in no segment"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"\0" * 9000, "has no multiboot header in its first 8192 bytes"),
        (struct.pack("<III", MAGIC, 0, 0), "has no multiboot header"),
        (b"\0" * 0x202 + b"HdrS" + b"\0" * 9000, "is a kernel by Linux's boot protocol"),
        (header(1 << 3), "asks for features 0x8"),
        (header(1 << 16), "is cut off"),
        (header(1 << 16, 0x1000, 0x2000, 0, 0, 0), "lies before the file"),
        (header(1 << 16, 0x100000, 0x100000, 0x200000, 0, 0), "promises 1048576 bytes"),
        (header(1 << 16, 0xF0000000, 0xF0000000, 0, 0, 0xF0000000), "raise memory_mib"),
        (header(0), "is no ELF file"),
        (elf(machine=40), "it is ELF for ARM, not for x86"),
        (elf(segments=0), "has nothing to load"),
        (elf(segments=5000), "it has 5000 segments, no more than 256 are loaded"),
        (elf64(memsz=4), "its segment at 0x100000 has 0xd bytes for 0x4 bytes of memory; build it again"),
        (elf64(filesz=100, memsz=100), "promises 0x64 bytes, the file has 0xd"),
        (elf64(filesz=1 << 63, memsz=1 << 63), "; build it again"),
        (elf64(offset=1 << 63), "a number in it is larger than any file or memory; build it again"),
        (elf64(entry=0, paddr=1 << 63), "memory ends at 0x2000000; raise memory_mib"),
        (elf64(memsz=1 << 63), "memory ends at 0x2000000; raise memory_mib"),
        (elf64(entry=1 << 40), "it starts at 0x10000000000, which 32-bit code cannot reach"),
    ],
)
def test_bad_multiboot_images(image: bytes, message: str) -> None:
    with pytest.raises(BadInput) as error:
        load_bytes(guest(), image)
    assert message in str(error.value)
    assert "x.img" in str(error.value)


def test_an_image_is_looked_at_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "x.img").open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(BadInput, match="has 68,719,476,736 bytes, no more than 268,435,456 are read"):
        load_image(guest(directory=str(tmp_path)))
    with pytest.raises(BadInput, match="no more than"):
        read_guest(tmp_path / "x.img")


def test_segments_may_not_have_more_bytes_than_memory_in_all() -> None:
    """Else a small file could have gigabytes written."""
    start = elf64(memsz=0x100000)
    again = bytearray(start[:56] + struct.pack("<H", 40) + start[58:120] + start[64:120] * 39 + start[120:])
    with pytest.raises(BadInput, match="lie on one another, and have more bytes than memory in all"):
        load_bytes(guest(), bytes(again))


def test_zeroes_are_written_only_where_another_piece_has_been() -> None:
    before, after = Piece(0x1000, b"x" * 0x100, 0x100), Piece(0x1000, b"y" * 0x10, 1 << 20)
    assert list(after.zeroes([before])) == [(0x1010, 0x1100)]
    assert not list(after.zeroes([Piece(0x0, b"x", 1), Piece(0x1000, b"x", 1 << 20)]))


def test_command_line_and_modules_on_the_pc(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"one")
    (tmp_path / "second").write_bytes(bytes(5000))
    described = guest(directory=str(tmp_path), platform="pc", arguments="-v 7", modules=("first quiet", "second"))
    loaded = load_bytes(described, elf())
    (info, *_), memory = loaded.pieces, {piece.gpa: piece.data for piece in loaded.pieces}

    def text(at: int) -> bytes:
        return info.data[at - info.gpa :].partition(b"\0")[0]

    flags, line, count, table = (struct.unpack_from("<I", info.data, at)[0] for at in (0, 16, 20, 24))
    assert (flags & 0x4D, text(line), count) == (0x4D, f"{described.image} -v 7".encode(), 2)
    modules = [struct.unpack_from("<IIII", info.data, table - info.gpa + 16 * i) for i in range(2)]
    assert [memory[start] for start, *_ in modules] == [b"one", bytes(5000)]
    assert [(end - start, text(words)) for start, end, words, _ in modules] == [(3, b"first quiet"), (5000, b"second")]
    assert all(start % 4096 == 0 for start, *_ in modules)


def test_memory_that_devices_leave_no_room_for_is_above_4_gib() -> None:
    described = guest(platform="pc", memory_mib=5120)
    info = load_bytes(described, elf()).pieces[0].data
    length, at = struct.unpack_from("<II", info, 44)
    entries = [struct.unpack_from("<IQQI", info, at - 0x9500 + 24 * i)[1:3] for i in range(length // 24)]
    assert entries == [(0, 0x9FC00), (1 << 20, (3072 << 20) - (1 << 20)), (1 << 32, 2048 << 20)]
    machine = Machine(described, loaded=load_bytes(described, elf()))
    assert [(slot.gpa, slot.size, slot.hva) for slot in machine.vm.memslots()] == [(0, 3072 << 20, 0), (1 << 32, 2 << 30, 3 << 30)]
    machine.vm.write_guest(0x17FFFFFFF, b"x")
    with pytest.raises(GuestMemoryError):
        machine.vm.write_guest(0x180000000, b"x")


def test_what_a_pc_cannot_have_is_refused(tmp_path: Path) -> None:
    toml = tmp_path / "guest.toml"
    toml.write_text('name = "g"\nimage = "g"\nwithout = ["wings"]\n')
    with pytest.raises(BadInput, match="without: this machine has no wings"):
        read_guest(toml)
    with pytest.raises(BadInput, match=r"module .*missing"):
        load_bytes(guest(directory=str(tmp_path), platform="pc", modules=("missing",)), elf())
