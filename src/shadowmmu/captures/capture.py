# SPDX-License-Identifier: GPL-2.0-only
"""A capture: one guest's run on a real kernel, with all that is needed to replay it, in one compressed file.

How captures are made, and what each part means to the kernel, is told in `capture/README.md`; `kit` reads that output.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from shadowmmu.border.limits import Dumps, Entries, Events, Frames, Parts, Steps
from shadowmmu.captures.markers import CREATES_VCPU
from shadowmmu.engine.face.kernels import kernel_of_release
from shadowmmu.errors import BadInput
from shadowmmu.trace.events import AnyEvent, Marker

_NOT_OF_A_VM = ("npt", "tdp_mmu", "kernel", "changed", "quirks_off", "roots")
QUIRKS = {1 << 7: "zaps_slot_alone"}
"""KVM_X86_QUIRK_*: the rule that holds without it. The others are none of the MMU's."""


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
    eager_page_split: bool = False
    """The kernel's TDP MMU splits an L2's huge mappings when dirty logging begins."""
    mmio_caching: bool = True
    pages_1g: bool = True
    """The guest's CPUID offers 1 GiB pages."""
    efer_reserved: int = 0
    """EFER bits that it does not offer."""
    vendor: str = "svm"
    """Of the host's CPU: "svm" or "vmx"."""
    guest_vendor: str = "host"
    """Of the guest's: "svm" or "vmx"; "host": as the host's."""
    changed: str = ""
    """Rules that are tried otherwise than the kernel has them: +RULE or -RULE each."""
    quirks_off: int = 0
    """KVM_X86_QUIRK_* that the VMM has turned off."""
    roots: str = ""
    """The kernel's design of roots, by the engine's name; empty: the capture does not say."""

    @property
    def series(self) -> str:
        """The kernel's: a name of the engine's KERNELS. Raises BadInput for one that is not known."""
        words = self.kernel.split()
        try:
            return kernel_of_release(words[2] if len(words) > 2 else self.kernel)
        except ValueError as error:
            raise BadInput(f"{error}: replay a capture of one of these, or try one by --kernel") from None

    @property
    def cpu_and_host(self) -> dict[str, Any]:
        """The same as arguments of a VM: the guest's CPU and the host."""
        told = {field: getattr(self, field) for field in self.__struct_fields__ if field not in _NOT_OF_A_VM}
        asked = "".join(f"+{rule}" for quirk, rule in QUIRKS.items() if self.quirks_off & quirk)
        return told | {"tdp": self.npt, "kernel": self.series + asked + self.changed}


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
    memslots: Annotated[list[Slot], Steps]
    ops: Annotated[list[Op], Steps]
    l2_ops: Annotated[list[Op], Steps] = []
    host_script: Annotated[list[Annotated[list[str], Steps]], Steps] = []


class TableEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a shadow table in which there was something."""

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
    entries: Annotated[list[TableEntry], Entries]
    nothing: Annotated[dict[int, int], Entries] | None = None
    """By table what all its other entries held, if that was not 0; None: the capture does not say."""


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
    image: Annotated[list[tuple[int, bytes]], Parts]
    """Initial memory: guest physical address, bytes."""
    events: Annotated[list[AnyEvent], Events]
    dumps: Annotated[list[Dump], Dumps]
    counters: Annotated[list[Counters], Dumps]
    frames: Annotated[list[tuple[int, int, int, int]], Frames]
    """Runs of (slot, gfn, host frame, pages): where guest memory lay at the end."""

    @property
    def markers(self) -> list[Marker]:
        """What guest and VMM say."""
        return [event for event in self.events if isinstance(event, Marker)]

    @property
    def vcpus(self) -> int:
        return sum(isinstance(event, Marker) and event.text == CREATES_VCPU for event in self.events)

    @property
    def name(self) -> str:
        return f"{self.set}/{self.guest.name}"
