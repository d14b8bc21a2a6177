# SPDX-License-Identifier: GPL-2.0-only
"""What the Python face of the engine gives and raises: outcomes, entries, views and typed errors. No engine state.

Addresses are in bytes unless a name says gfn (a guest frame number, gpa >> 12). Levels are the kernel's: 1 is the table
whose entries map 4 KiB. Numbers are shown in hex, but for levels, counts and ids.
"""

from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from shadowmmu.engine.arena.role import describe_role

Record = TypeVar("Record", bound=tuple[Any, ...])
_DECIMAL = {
    "kind",
    "level",
    "guest_levels",
    "guest",
    "shadow",
    "vector",
    "root_count",
    "unsync_children",
    "owner",
    "vcpu",
    "slot",
    "address_space",
}


def _shown(name: str, value: object) -> str:
    """A field as it reads best."""
    if name == "role" and isinstance(value, int):
        return f"{value:#x} ({describe_role(value)})"
    if isinstance(value, int) and not isinstance(value, (bool, IntEnum)) and name not in _DECIMAL:
        return hex(value)
    if type(value) is tuple:
        return f"({', '.join(_shown(name, each) for each in value)})"
    return repr(value)


def _repr(record: Any) -> str:
    """The fields by name, numbers in hex."""
    return f"{type(record).__name__}({', '.join(f'{name}={_shown(name, value)}' for name, value in record._asdict().items())})"


def in_hex(record: type[Record]) -> type[Record]:
    """A NamedTuple that shows its numbers in hex."""
    record.__repr__ = _repr  # type: ignore[method-assign]
    return record


class Outcome(IntEnum):
    """How a page fault ended. Values 1-5 are Linux 6.1's RET_PF_*."""

    RETRY = 1
    """Run the guest again: something changed meanwhile."""
    EMULATE = 2
    """Emulate the faulting instruction: MMIO, or a write to a shadowed table."""
    FIXED = 4
    """A mapping was made; run the guest again."""
    SPURIOUS = 5
    """The mapping was there already; run the guest again."""
    INJECT = 6
    """The fault is the guest's: deliver `Vcpu.exception`."""


@in_hex
class Entry(NamedTuple):
    """What the hardware is to run with at guest entry."""

    root: int
    """Host physical address of the shadow root, bytes."""
    level: int
    """Its level: 3 (PAE paging, below 4 GiB), 4 or 5."""
    flush_all: bool
    """Drop every translation before entering."""
    flush_gvas: tuple[int, ...]
    """Drop the translations of these addresses."""


@in_hex
class RootInfo(NamedTuple):
    """A root and what it was made for: kvm_mmu_root_info."""

    pgd: int
    """CR3, nested CR3 or EPT pointer."""
    hpa: int
    """Host physical address of the root table."""


@in_hex
class Levels(NamedTuple):
    """Levels of the tables of an MMU."""

    guest: int
    """Of the tables it shadows; 0 without paging."""
    shadow: int
    """Of the shadow tables: 3, 4 or 5."""


@in_hex
class PageFaultException(NamedTuple):
    """A #PF to deliver, or with `nested` an exit to the L1 hypervisor."""

    vector: int
    """14."""
    error_code: int
    """`x86.pferr.Pferr` bits, as the guest or L1 finds them."""
    cr2: int
    """The faulting address; with `nested` an L2 physical address."""
    nested: bool
    exit_qualification: int = 0
    """EPT violations: what was tried and what the entries allow (SDM vol. 3 table 27-7)."""


@in_hex
class HostRegion(NamedTuple):
    """A range of host physical memory, and where this process has it: for a CPU to be given."""

    hpa: int
    size: int
    address: int
    """Of its first byte in this process."""


@in_hex
class EventRecord(NamedTuple):
    """One event as the engine recorded it."""

    kind: int
    """`engine.arena.events.Event`, whose comments name the fields of each kind."""
    vcpu: int
    """-1 where no vCPU is concerned."""
    fields: tuple[int, int, int, int, int, int]


@in_hex
class Memslot(NamedTuple):
    """A range of guest physical memory, and the host user memory behind it (KVM_SET_USER_MEMORY_REGION)."""

    slot: int
    """Its number within the address space."""
    address_space: int
    """0, or 1 for SMM."""
    gpa: int
    """Where it begins, guest physical, bytes."""
    size: int
    """Bytes, whole pages."""
    hva: int
    """Where its memory begins in the VM's host user memory, bytes."""
    readonly: bool
    log_dirty: bool


@in_hex
class ShadowPageView(NamedTuple):
    """One shadow page, as it is now."""

    hpa: int
    """Where its table lies in host memory, bytes."""
    gfn: int
    """Frame number of the guest table it shadows, of the first page it maps if direct, 0 if special."""
    role: int
    """The role word; `level`, `direct` and `text` decode it."""
    root_count: int
    """How many root slots of vCPUs hold it."""
    unsync: bool
    """The guest may write the table that it shadows: it may be stale until the guest invalidates."""
    unsync_children: int
    """How many of its 512 entries lead to unsync pages, at once or further down."""
    special: bool
    """A special shadow page: it has no guest table and belongs to one vCPU."""
    owner: int
    """vCPU of a special page, else -1."""
    obsolete: bool
    """Of an older generation, or invalid: never linked again."""
    parents: tuple[int, ...]
    """Host physical addresses of the entries that point here."""

    @property
    def level(self) -> int:
        """1 to 5."""
        return self.role & 0xF

    @property
    def direct(self) -> bool:
        """It maps gfns in a row and shadows no table."""
        return bool(self.role & 0x80)

    @property
    def text(self) -> str:
        """The role in the kernel's words."""
        return describe_role(self.role)


@in_hex
class MmuView(NamedTuple):
    """One MMU of a vCPU, as it is now: what it shadows, and the roots it has."""

    name: str
    """"root", or "guest": the one that shadows L1's NPT or EPT while L2 runs."""
    in_use: bool
    """It builds the tables that the CPU walks now."""
    role: int
    """The role word of its roots; `levels` and `direct` decode it."""
    guest_levels: int
    """Levels of the tables it shadows; 0 without paging."""
    pgd: int
    """CR3, nested CR3 or EPT pointer of the present root, or of the last."""
    root: int | None
    """Host physical address of the present root."""
    prev_roots: tuple[RootInfo, ...]
    """Those kept for later."""

    @property
    def levels(self) -> int:
        """Levels of the shadow tables: 3, 4 or 5."""
        return self.role & 0xF

    @property
    def direct(self) -> bool:
        """It shadows no tables."""
        return bool(self.role & 0x80)


@in_hex
class WalkStep(NamedTuple):
    """One table of a walk."""

    level: int
    gpa: int
    """Where the entry lies, L1 physical, bytes."""
    entry: int | None
    """The guest's entry; None: no memory there."""


@in_hex
class NestedWalk(NamedTuple):
    """The way of an L2 physical address through the nested tables that L1 made, to memory of the VM."""

    steps: tuple[WalkStep, ...]
    """From the top table down to the leaf, or to the entry where it ends."""
    gpa: int | None
    """L1 physical address; None: an entry on the way is not present."""
    hva: int | None
    """Byte offset in the VM's host user memory; None: no memslot there."""


class EngineError(Exception):
    """The engine cannot go on with what it was asked; the message names the object."""


class TripleFault(EngineError):
    """CR3 leads outside guest memory: the guest shuts down."""


class OutOfPages(EngineError):
    """No shadow page or descriptor is left, even after recycling."""


class HostFault(EngineError):
    """The host cannot give the page the guest touched (-EFAULT to user space)."""


class GuestMemoryError(EngineError):
    """A guest physical address outside every memslot, or read-only memory written."""


class MemslotError(EngineError):
    """A memslot that cannot be made, moved or deleted as asked."""
