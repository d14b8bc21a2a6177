# SPDX-License-Identifier: GPL-2.0-only
"""The guest's own tables, looked at from outside: nothing here changes guest memory."""

from typing import NamedTuple

import cython
from cython.cimports.libc.stdint import uint8_t, uint64_t
from cython.cimports.shadowmmu.engine.face.nested_walk import walk_nested
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest

from shadowmmu.engine.face.types import PageFaultException
from shadowmmu.hardware.walk import Paging, features_of, paging, walk
from shadowmmu.x86.pferr import Pferr

PAGE_SIZE = 4096
GUEST_FINAL, GUEST_PAGE = int(Pferr.GUEST_FINAL), int(Pferr.GUEST_PAGE)
PDPTE_LEVELS = cython.declare(cython.int, 3)


class Path(NamedTuple):
    """What a walk for one linear address reads; all addresses are physical for the guest that runs, L1 or L2."""

    entries: tuple[int, ...]
    """Where the entries lie, down to where the walk ends."""
    gpa: int | None
    """What it leads to; None: it faults."""


def paging_of(vcpu: Vcpu) -> Paging:
    """The paging mode of the guest that runs."""
    return paging(vcpu.cr0, vcpu.cr4, vcpu.efer, features_of(vcpu.vm.config))


def reported_fault(vcpu: object) -> PageFaultException:
    """The fault that the engine's last answer spoke of."""
    fault = vcpu.exception
    assert fault is not None
    return fault


def l1_physical(vcpu: Vcpu, gpa: uint64_t):
    """Where an address that is physical for the guest that runs leads in L1's memory; None: nowhere."""
    return walk_nested(vcpu.vcpu, gpa).gpa if vcpu.vcpu.nested.npt else gpa


def read_physical(vcpu: Vcpu, gpa: uint64_t, size: uint64_t):
    """Memory as the guest that runs sees it, within one page; None: there is none."""
    at: object = l1_physical(vcpu, gpa)
    buffer: uint8_t[4096]
    if at is None or size > PAGE_SIZE - at % PAGE_SIZE or not read_guest(vcpu.vcpu.kvm, 0, at, buffer, size):
        return None
    return int.from_bytes(buffer[:size], "little")


def path_of(vcpu: Vcpu, gva: uint64_t):
    """The walk for `gva`, rights left aside."""
    trail: list = []
    mode: object = paging_of(vcpu)

    def read(gpa: object, size: object) -> object:
        return read_physical(vcpu, gpa, size)

    found = walk(mode, read, vcpu.vcpu.cr3, gva, ac=True, trail=trail)
    entries: tuple = tuple([entry.pa for entry in trail])
    if mode.levels == PDPTE_LEVELS:
        entries = ((vcpu.vcpu.cr3 & 0xFFFFFFE0) + (gva >> 27 & 0x18), *entries)
    return Path(entries, None if isinstance(found, int) else found.address(gva))


def locate_fault(vcpu: Vcpu, gva: int, gpa: int) -> tuple[int, int]:
    """(address, bit of EXITINFO1) of a fault that L1's tables raised for the page at `gpa` while `gva` was translated."""
    for entry in path_of(vcpu, gva).entries:
        if entry // PAGE_SIZE == gpa // PAGE_SIZE:
            return entry, GUEST_PAGE
    return gpa & -PAGE_SIZE | gva % PAGE_SIZE, GUEST_FINAL
