# SPDX-License-Identifier: GPL-2.0-only
"""What of an ELF file is loaded where, and where it is entered: by pyelftools, which believes a file, so that each promise is checked."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from shadowmmu.border.limits import SEGMENTS
from shadowmmu.machine.seam import MASK32

ELF_ERRORS = (ELFError, ConstructError)
"""What `read_elf` raises beside ValueError."""


class ElfSegment(NamedTuple):
    """Bytes for guest memory, and zeroes behind them up to `size`."""

    gpa: int
    data: bytes
    size: int


def is_elf(image: bytes) -> bool:
    return image.startswith(b"\x7fELF")


def read_elf(image: bytes) -> tuple[list[ElfSegment], int]:
    """The segments to load, and the physical address to jump to."""
    elf = ELFFile(BytesIO(image))
    if elf.get_machine_arch() not in ("x86", "x64"):
        raise ValueError(f"it is ELF for {elf.get_machine_arch()}, not for x86")
    if elf.num_segments() > SEGMENTS:
        raise ValueError(f"it has {elf.num_segments()} segments, no more than {SEGMENTS} are loaded")
    segments = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD" and segment["p_memsz"]]
    loaded = [_segment(segment.header, segment.data()) for segment in segments]
    entry = _physical(segments, int(elf["e_entry"]))
    if entry > MASK32:
        raise ValueError(f"it starts at {entry:#x}, which 32-bit code cannot reach")
    return loaded, entry


def _segment(header: Mapping[str, int], data: bytes) -> ElfSegment:
    """Raises ValueError for one that does not have what it promises."""
    at, promised, size = header["p_paddr"], header["p_filesz"], header["p_memsz"]
    if len(data) != promised:
        raise ValueError(f"its segment at {at:#x} promises {promised:#x} bytes, the file has {len(data):#x}")
    if promised > size:
        raise ValueError(f"its segment at {at:#x} has {promised:#x} bytes for {size:#x} bytes of memory")
    return ElfSegment(at, data, size)


def _physical(segments: Sequence[Any], entry: int) -> int:
    """Where a boot loader jumps to: a kernel linked to run elsewhere than it is loaded tells a virtual address."""
    for segment in segments:
        if segment["p_vaddr"] <= entry < segment["p_vaddr"] + segment["p_memsz"]:
            return entry - int(segment["p_vaddr"]) + int(segment["p_paddr"])
    return entry
