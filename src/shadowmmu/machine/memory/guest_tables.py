# SPDX-License-Identifier: GPL-2.0-only
"""The guest's own tables, looked at from outside: nothing here changes guest memory."""

from typing import TYPE_CHECKING, NamedTuple

from shadowmmu.engine.face.types import GuestMemoryError, PageFaultException
from shadowmmu.hardware.walk import Paging, TrailEntry, features_of, paging, walk
from shadowmmu.x86.pferr import Pferr

if TYPE_CHECKING:
    from shadowmmu import Vcpu

PAGE_SIZE = 4096
GUEST_FINAL, GUEST_PAGE = int(Pferr.GUEST_FINAL), int(Pferr.GUEST_PAGE)
_PDPTE_LEVELS = 3


class Path(NamedTuple):
    """What a walk for one linear address reads; all addresses are physical for the guest that runs, L1 or L2."""

    entries: tuple[int, ...]
    """Where the entries lie, down to where the walk ends."""
    gpa: int | None
    """What it leads to; None: it faults."""


def paging_of(vcpu: "Vcpu") -> Paging:
    """The paging mode of the guest that runs."""
    return paging(vcpu.cr0, vcpu.cr4, vcpu.efer, features_of(vcpu.vm.config))


def reported_fault(vcpu: "Vcpu") -> PageFaultException:
    """The fault that the engine's last answer spoke of."""
    fault = vcpu.exception
    assert fault is not None
    return fault


def l1_physical(vcpu: "Vcpu", gpa: int) -> int | None:
    """Where an address that is physical for the guest that runs leads in L1's memory; None: nowhere."""
    nested = vcpu.nested_walk(gpa)
    return gpa if nested is None else nested.gpa


def read_physical(vcpu: "Vcpu", gpa: int, size: int) -> int | None:
    """Memory as the guest that runs sees it; None: there is none."""
    at = l1_physical(vcpu, gpa)
    try:
        return None if at is None else int.from_bytes(vcpu.vm.read_guest(at, size), "little")
    except GuestMemoryError:
        return None


def path_of(vcpu: "Vcpu", gva: int) -> Path:
    """The walk for `gva`, rights left aside."""
    mode = paging_of(vcpu)
    trail: list[TrailEntry] = []
    found = walk(mode, lambda gpa, size: read_physical(vcpu, gpa, size), vcpu.cr3, gva, ac=True, trail=trail)
    entries = tuple(entry.pa for entry in trail)
    if mode.levels == _PDPTE_LEVELS:
        entries = ((vcpu.cr3 & 0xFFFFFFE0) + (gva >> 27 & 0x18), *entries)
    return Path(entries, None if isinstance(found, int) else found.address(gva))


def locate_fault(vcpu: "Vcpu", gva: int, gpa: int) -> tuple[int, int]:
    """(address, bit of EXITINFO1) of a fault that L1's tables raised for the page at `gpa` while `gva` was translated."""
    for entry in path_of(vcpu, gva).entries:
        if entry // PAGE_SIZE == gpa // PAGE_SIZE:
            return entry, GUEST_PAGE
    return gpa & -PAGE_SIZE | gva % PAGE_SIZE, GUEST_FINAL
