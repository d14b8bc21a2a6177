"""What the Python face of the engine gives and raises: outcomes, entries, views and typed errors. No engine state."""

from enum import IntEnum
from typing import NamedTuple

from shadowmmu.engine.arena.role import describe_role


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


class PageFaultException(NamedTuple):
    """A #PF to deliver, or with `nested` an exit to the L1 hypervisor."""

    vector: int
    error_code: int
    cr2: int
    """The faulting address; with `nested` an L2 physical address."""
    nested: bool
    exit_qualification: int = 0
    """EPT violations: what was tried and what the entries allow (SDM vol. 3 table 27-7)."""


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


class ShadowPageView(NamedTuple):
    """One shadow page, as it is now."""

    hpa: int
    """Where its table lies in host memory, bytes."""
    gfn: int
    role: int
    """The role word; `level`, `direct` and `text` decode it."""
    root_count: int
    unsync: bool
    unsync_children: int
    special: bool
    owner: int
    """vCPU of a special page, else -1."""
    obsolete: bool
    parents: tuple[int, ...]
    """Host physical addresses of the entries that point here."""

    @property
    def level(self) -> int:
        return self.role & 0xF

    @property
    def direct(self) -> bool:
        return bool(self.role & 0x80)

    @property
    def text(self) -> str:
        """The role in the kernel's words."""
        return describe_role(self.role)


class MmuView(NamedTuple):
    """One MMU of a vCPU, as it is now: what it shadows, and the roots it has."""

    name: str
    """"root", or "guest": the one that shadows L1's NPT or EPT while L2 runs."""
    in_use: bool
    role: int
    """The role word of its roots; `levels` and `direct` decode it."""
    guest_levels: int
    """Levels of the tables it shadows; 0 without paging."""
    pgd: int
    """CR3, nested CR3 or EPT pointer of the present root, or of the last."""
    root: int | None
    """Host physical address of the present root."""
    prev_roots: tuple[tuple[int, int], ...]
    """(CR3, host physical address) of those kept for later."""

    @property
    def levels(self) -> int:
        """Levels of the shadow tables."""
        return self.role & 0xF

    @property
    def direct(self) -> bool:
        """It shadows no tables."""
        return bool(self.role & 0x80)


class WalkStep(NamedTuple):
    """One table of a walk."""

    level: int
    gpa: int
    """Where the entry lies, L1 physical, bytes."""
    entry: int | None
    """The guest's entry; None: no memory there."""


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
