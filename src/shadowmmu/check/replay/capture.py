"""A capture: one guest's run on a real kernel, with all that is needed to replay it, in one compressed file.

How captures are made, and what each part means to the kernel, is told in `capture/README.md`; `kit` reads that output.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import msgspec

from shadowmmu.check.replay.validate import validate_capture
from shadowmmu.errors import BadInput
from shadowmmu.trace.binary import compress
from shadowmmu.trace.events import GRAMMAR_VERSION, AnyEvent

SUFFIX = ".capture"


class Setup(msgspec.Struct, frozen=True):
    """The host's side: what module parameters and CPUID decide."""

    npt: bool
    """Nested paging: L1 runs on direct tables, an L2 on shadow NPT."""
    tdp_mmu: bool
    """L1's direct tables belong to the TDP MMU, which is another system than the shadow MMU."""
    host_levels: int
    maxphyaddr: int
    """The guest's physical address width, bits."""
    host_maxphyaddr: int
    cr4_reserved: int
    """CR4 bits that the guest's CPUID does not offer."""
    nx_huge_pages: bool
    kernel: str


class Slot(msgspec.Struct, frozen=True):
    id: int
    gpa: int
    size: int
    backing: str = "anon"
    flags: int = 0


class Op(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the guest's programme, as its author wrote it."""

    i: int
    op: str
    rip: int = 0
    """Address of the instruction that does it."""
    cpl: int = 0
    va: int = 0
    val: int = 0
    size: int = 4
    note: str | None = None

    @property
    def writes_cr3(self) -> bool:
        return self.op.removeprefix("l2_") == "cr3"


class Guest(msgspec.Struct, frozen=True):
    name: str
    desc: str
    entry_state: dict[str, int]
    memslots: list[Slot]
    ops: list[Op]
    l2_ops: list[Op] = []
    host_script: list[list[str]] = []


class TableEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a shadow table that was not zero."""

    level: int
    table: int
    index: int
    value: int


class Dump(msgspec.Struct, frozen=True):
    """The shadow tables as the host's memory held them when the guest wrote marker `seq`."""

    seq: int
    tag: str
    root: int
    level: int
    entries: list[TableEntry]


class Counters(msgspec.Struct, frozen=True):
    """The kernel's debugfs counters; those that are zero are left out."""

    seq: int
    tag: str
    values: dict[str, int]


class Capture(msgspec.Struct, frozen=True):
    """A whole capture."""

    grammar: int
    set: str
    setup: Setup
    guest: Guest
    image: list[tuple[int, bytes]]
    """Initial memory: guest physical address, bytes."""
    events: list[AnyEvent]
    dumps: list[Dump]
    counters: list[Counters]
    frames: list[tuple[int, int, int, int]]
    """Runs of (slot, gfn, host frame, pages): where guest memory lay at the end."""

    @property
    def name(self) -> str:
        return f"{self.set}/{self.guest.name}"


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
