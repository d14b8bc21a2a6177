# SPDX-License-Identifier: GPL-2.0-only
"""Guests: their description in TOML, and images loaded as a boot loader leaves them.

Formats: ``multiboot`` (version 1: ELF, or any file with the address fields), ``elf`` and ``flat`` (bytes at an address).
Source: Multiboot Specification 0.6.96.
"""

import struct
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from shadowmmu.border.files import parsing, read_file
from shadowmmu.border.limits import DESCRIPTION, IMAGE
from shadowmmu.errors import BadInput
from shadowmmu.machine.devices.memory_map import HIGH_MEMORY, LOW_MIB
from shadowmmu.machine.elf_image import ELF_ERRORS, is_elf, read_elf
from shadowmmu.machine.host import Host
from shadowmmu.machine.multiboot_info import INFO, multiboot_info
from shadowmmu.machine.seam import MASK32, Reg, Segment, State
from shadowmmu.machine.vcpu.cpuid import FEATURES
from shadowmmu.machine.vcpu.reset import real_mode, system_state
from shadowmmu.x86.control import Cr0, Rflags

Mode = Literal["nonpaging", "2-level", "pae", "4-level", "5-level", "mixed"]
_MAGIC, _LOADER_MAGIC = 0x1BADB002, 0x2BADB002
_LINUX_MAGIC, _LINUX_MAGIC_AT = b"HdrS", 0x202
_SEARCH = 8192  # bytes of the file in which the header must lie
_KLUDGE, _KNOWN_REQUIRED = 1 << 16, 0x10003
_PAGE = 4096
_CODE_32, _DATA_32 = 0xC9B, 0xC93
_LOW_MEMORY_END, _PC_LOW_MEMORY_END, _UPPER_MEMORY = 0xA0000, 0x9FC00, 0x100000
MAX_MEMORY_MIB = 16384


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A guest as its TOML file tells of it."""

    name: str
    title: str = ""
    description: str = ""
    image: str
    """File name, relative to the TOML file."""
    format: Literal["multiboot", "elf", "flat"] = "multiboot"
    memory_mib: Annotated[int, msgspec.Meta(ge=1, le=MAX_MEMORY_MIB)] = 32
    """On the PC what is beyond 3 GiB lies above 4 GiB."""
    vcpus: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """On the bare platform they all start at the entry point, and CPUID tells them apart."""
    mode: Mode = "nonpaging"
    """What the guest is about; it enters the mode by itself."""
    features: tuple[str, ...] = ()
    """What it needs of the CPU: `svm` makes it a hypervisor, `npt` lets it use nested paging."""
    without: tuple[str, ...] = ()
    """What CPUID is not to offer."""
    vendor: Literal["AMD", "Intel"] = "AMD"
    """What CPUID and the MMU take the CPU for; AMD-V is AMD's only."""
    platform: Literal["bare", "pc"] = "bare"
    """What is around the CPU: a serial port that is polled, or a small PC with interrupts, whose other vCPUs wait for a SIPI."""
    arguments: str = ""
    """Behind the image's name on the multiboot command line."""
    modules: tuple[str, ...] = ()
    """Files that a multiboot loader puts into memory beside the image; behind a space may follow the module's own command line."""
    input: str = ""
    """What comes in at the PC's serial port."""
    end: Literal["pass", "halt"] = "pass"
    """How it ends if all is well: it writes `exit_pass` to the exit port, or all of its vCPUs halt."""
    exit_pass: Annotated[int, msgspec.Meta(ge=0, le=MASK32)] = 0x10
    """What it writes to the exit port if all is well."""
    expect: str = ""
    """Its last line of output, if all is well."""
    load: Annotated[int, msgspec.Meta(ge=0, le=MASK32)] = 0x7C00
    """Of a flat image: where its first byte goes, guest physical."""
    entry: Annotated[int, msgspec.Meta(ge=0, le=MASK32)] | None = None
    """Of a flat image: where it starts; by default where it is loaded."""
    start: Literal["real", "protected"] = "real"
    """Of a flat image: in 16-bit real mode, or 32-bit protected mode with flat segments."""
    host: Host | None = None
    """Of the bare platform: memory in memslots of its own, and what the host does while the guest runs; by default memory from 0 on, and
    nothing."""
    directory: str = ""
    """Where the TOML file was; set by `read_guest`."""

    @property
    def path(self) -> Path:
        return Path(self.directory) / self.image

    @property
    def low_memory_mib(self) -> int:
        """Memory from 0 on, in one piece."""
        return min(self.memory_mib, LOW_MIB) if self.platform == "pc" else self.memory_mib

    @property
    def high_memory(self) -> tuple[int, int]:
        """Where the rest begins, and its size."""
        return HIGH_MEMORY, self.memory_mib - self.low_memory_mib << 20


class Piece(NamedTuple):
    """Bytes for guest memory, and zeroes behind them up to `size`."""

    gpa: int
    data: bytes
    size: int

    def zeroes(self, before: Iterable["Piece"]) -> Iterator[tuple[int, int]]:
        """Where zeroes are to be written: where pieces that were loaded `before` left bytes, as fresh memory has none."""
        for other in before:
            start, end = max(self.gpa + len(self.data), other.gpa), min(self.gpa + self.size, other.gpa + len(other.data))
            if start < end:
                yield start, end


class Loaded(NamedTuple):
    """An image ready to start."""

    pieces: tuple[Piece, ...]
    state: State
    cr0: int


def read_guest(path: Path | str) -> Guest:
    """A guest from its TOML file, or from a bare multiboot image."""
    path = Path(path)
    is_toml = path.suffix == ".toml"
    data = read_file(path, DESCRIPTION if is_toml else IMAGE, f"guest {path}", "name a TOML file or a multiboot image")
    if not is_toml:
        return Guest(name=path.stem, image=path.name, directory=str(path.parent), mode="mixed", platform="pc")
    with parsing(f"guest {path} is not TOML", "mend that line"):
        table = tomllib.loads(data.decode())
    with parsing(f"guest {path}", "mend that field"):
        guest = msgspec.convert({**table, "directory": str(path.parent)}, Guest)
    if guest.host is not None and (guest.platform != "bare" or "npt" in guest.features):
        raise BadInput(f'guest {path}: host goes with platform = "bare" and without npt; leave one of them out')
    for field in ("features", "without"):
        unknown = [name for name in getattr(guest, field) if name not in FEATURES]
        if unknown:
            raise BadInput(f"guest {path}: {field}: this machine has no {', '.join(unknown)}; it has {', '.join(FEATURES)}")
    return guest


def load_image(guest: Guest) -> Loaded:
    """Read the guest's image and lay it out."""
    return load_bytes(guest, read_file(guest.path, IMAGE, f"image {guest.path} of guest {guest.name}", "build it, or mend `image`"))


def load_bytes(guest: Guest, image: bytes) -> Loaded:
    """The same for an image in memory."""
    loaded = _READERS[guest.format](guest, image)
    end = guest.low_memory_mib << 20
    if guest.host is not None:
        return _in_memslots(guest, guest.host, loaded)
    for piece in loaded.pieces:
        if piece.gpa < 0 or piece.gpa + piece.size > end:
            raise BadInput(
                f"image {guest.path}: it wants {piece.gpa:#x}-{piece.gpa + piece.size:#x}, memory ends at {end:#x}; "
                "raise memory_mib or link it lower"
            )
    if sum(piece.size for piece in loaded.pieces) > end:
        raise BadInput(f"image {guest.path}: its segments lie on one another, and have more bytes than memory in all; link it anew")
    return loaded


def _in_memslots(guest: Guest, host: Host, loaded: Loaded) -> Loaded:
    for piece in loaded.pieces:
        if not host.holds(piece.gpa, piece.gpa + piece.size):
            raise BadInput(f"image {guest.path}: it wants {piece.gpa:#x}-{piece.gpa + piece.size:#x}, which no memslot has; add one")
    if sum(piece.size for piece in loaded.pieces) > host.memory_mib << 20:
        raise BadInput(f"image {guest.path}: its segments lie on one another, and have more bytes than the host's memory; link it anew")
    return loaded


# --- starting states


def _protected(entry: int, gpr: dict[Reg, int]) -> tuple[State, int]:
    registers = [gpr.get(Reg(i), 0) if i < 8 else 0 for i in range(16)]
    system = system_state(Segment(8, _CODE_32, MASK32, 0), Segment(16, _DATA_32, MASK32, 0))
    return State(registers, entry, Rflags.FIXED, system), Cr0.PE | Cr0.ET


def _real(entry: int) -> tuple[State, int]:
    return real_mode(0, 0, entry), Cr0.ET


# --- formats


def _flat(guest: Guest, image: bytes) -> Loaded:
    if not image:
        raise BadInput(f"image {guest.path} is empty; build it")
    entry = guest.load if guest.entry is None else guest.entry
    if guest.start == "real" and entry > 0xFFFF:
        raise BadInput(
            f'guest {guest.name}: entry {entry:#x} is out of reach in real mode; load it below 0x10000, or set start = "protected"'
        )
    state, cr0 = _protected(entry, {}) if guest.start == "protected" else _real(entry)
    return Loaded((Piece(guest.load, image, len(image)),), state, cr0)


def _plain_elf(guest: Guest, image: bytes) -> Loaded:
    """Started in 32-bit protected mode, with flat segments."""
    if not is_elf(image):
        raise BadInput(f"image {guest.path} is no ELF file; build it again, or mend `format`")
    pieces, entry = _elf(guest, image)
    state, cr0 = _protected(entry, {})
    return Loaded(pieces, state, cr0)


def _multiboot(guest: Guest, image: bytes) -> Loaded:
    at = _find_header(guest, image)
    flags = struct.unpack_from("<I", image, at + 4)[0]
    if flags & 0xFFFF & ~_KNOWN_REQUIRED:
        raise BadInput(f"image {guest.path}: its multiboot header asks for features {flags & 0xFFFF:#x}; mend its flags")
    if flags & _KLUDGE:
        pieces, entry = _address_fields(guest, image, at)
    else:
        pieces, entry = _elf(guest, image)
    state, cr0 = _protected(entry, {Reg.RAX: _LOADER_MAGIC, Reg.RBX: INFO})
    modules = _modules(guest, max(piece.gpa + piece.size for piece in pieces))
    info = multiboot_info(_memory(guest), _command_line(guest), [(piece.gpa, piece.gpa + piece.size, words) for piece, words in modules])
    return Loaded((Piece(INFO, info, len(info)), *pieces, *(piece for piece, _ in modules)), state, cr0)


def _memory(guest: Guest) -> list[tuple[int, int]]:
    """Where it is, and how much."""
    memory, low = guest.low_memory_mib << 20, _PC_LOW_MEMORY_END if guest.platform == "pc" else _LOW_MEMORY_END
    return [(0, min(memory, low)), (_UPPER_MEMORY, memory - _UPPER_MEMORY), guest.high_memory]


def _command_line(guest: Guest) -> str | None:
    return f"{guest.image} {guest.arguments}".strip() if guest.platform == "pc" else None


def _find_header(guest: Guest, image: bytes) -> int:
    for at in range(0, min(len(image), _SEARCH) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", image, at)
        if magic == _MAGIC and not (magic + flags + checksum) & MASK32:
            return at
    if image[_LINUX_MAGIC_AT : _LINUX_MAGIC_AT + len(_LINUX_MAGIC)] == _LINUX_MAGIC:
        raise BadInput(f"image {guest.path} is a kernel by Linux's boot protocol (bzImage), which is not loaded; name a multiboot image")
    raise BadInput(f'image {guest.path} has no multiboot header in its first {_SEARCH} bytes; add one, or set format = "flat"')


def _address_fields(guest: Guest, image: bytes, at: int) -> tuple[tuple[Piece, ...], int]:
    """Header fields at +12: header, load, load end, bss end, entry address."""
    if at + 32 > len(image):
        raise BadInput(f"image {guest.path}: its multiboot header is cut off; build it again")
    header, load, load_end, bss_end, entry = struct.unpack_from("<5I", image, at + 12)
    start = at - (header - load)
    if start < 0 or load > header:
        raise BadInput(f"image {guest.path}: multiboot load address {load:#x} lies before the file; mend the header's address fields")
    end = load_end or load + len(image) - start
    if end < load or (bss_end and bss_end < end):
        raise BadInput(f"image {guest.path}: its load, load end and bss end are {load:#x}, {end:#x}, {bss_end:#x}; put them in that order")
    if end - load > len(image) - start:
        raise BadInput(f"image {guest.path}: its header promises {end - load} bytes, the file has {len(image) - start}; build it again")
    data = image[start : start + end - load]
    return (Piece(load, data, max(len(data), bss_end - load)),), entry


def _elf(guest: Guest, image: bytes) -> tuple[tuple[Piece, ...], int]:
    if not is_elf(image):
        raise BadInput(f"image {guest.path} is no ELF file, and its multiboot header has no address fields; set flag bit 16")
    with parsing(f"image {guest.path}", "build it again", ELF_ERRORS):
        segments, entry = read_elf(image)
    if not segments:
        raise BadInput(f"image {guest.path} has nothing to load; link it with loadable segments")
    return tuple(Piece(*segment) for segment in segments), entry


def _modules(guest: Guest, end: int) -> list[tuple[Piece, str]]:
    """The modules, a page apart behind the image's `end`, with their command lines. All of them are no larger than what memory is left."""
    found, memory = [], guest.low_memory_mib << 20
    for words in guest.modules:
        path = Path(guest.directory) / words.partition(" ")[0]
        start = -(-end // _PAGE) * _PAGE
        room = min(IMAGE, max(0, memory - start))
        data = read_file(path, room, f"module {path} of guest {guest.name}", "mend `modules`, or have more `memory_mib`")
        end = start + max(len(data), 1)
        found.append((Piece(start, data, len(data)), words))
    return found


_READERS = {"multiboot": _multiboot, "elf": _plain_elf, "flat": _flat}
