# SPDX-License-Identifier: GPL-2.0-only
"""Errors of guest entries and faults: what is wrong, told with the pointer or the address that leads astray."""

import cython
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, Errno, GuestFormat, KvmMmuPtr, KvmVcpuPtr, u64
from cython.cimports.shadowmmu.engine.guest.mmu import get_pdptr, guest_level, guest_pgd, root_level
from cython.cimports.shadowmmu.engine.memory.memslots import is_visible_gfn
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.engine.face.types import EngineError, HostFault, OutOfPages, TripleFault


@cython.cfunc
def leads_outside(vcpu: KvmVcpuPtr, address: u64) -> cython.bint:
    return not is_visible_gfn(vcpu.kvm, vcpu.smm, address >> PAGE_SHIFT)


@cython.cfunc
def pgd_name(mmu: KvmMmuPtr) -> str:
    """What the manuals call the pointer to the top table."""
    if not mmu.is_guest_mmu:
        return "CR3"
    return "EPT pointer" if mmu.format == GuestFormat.FORMAT_EPT else "nested CR3"


@cython.cfunc
def culprit(vcpu: KvmVcpuPtr) -> str:
    """The pointer for which no root could be loaded: the top one, or a PDPTE, which legacy roots follow at once."""
    mmu: KvmMmuPtr = vcpu.mmu
    pgd: u64 = guest_pgd(vcpu, mmu)
    name: str = f"{pgd_name(mmu)} {pgd:#x}"
    if guest_level(mmu) == 3 and not leads_outside(vcpu, pgd):
        i: cython.int
        for i in range(4):
            pdpte: u64 = get_pdptr(vcpu, mmu, i)
            if pdpte & Pte.PRESENT and leads_outside(vcpu, pdpte):
                return f"PDPTE {i}, {pdpte:#x}, of {name}"
    return name


@cython.cfunc
def raise_no_root(vcpu: KvmVcpuPtr, result: cython.int) -> object:
    """Turn what `prepare_entry` gave, other than 0, into its exception."""
    if result == 1:
        raise TripleFault(f"vCPU {vcpu.id}: {culprit(vcpu)} leads outside guest memory")
    raise OutOfPages(f"vCPU {vcpu.id}: no shadow page for a root; raise shadow_pages")


@cython.cfunc
def raise_fault(vcpu: KvmVcpuPtr, address: u64, result: cython.int) -> object:
    """Turn a negative errno of the fault path into its exception."""
    if result == -cython.cast(cython.int, Errno.ERANGE):
        raise EngineError(
            f"vCPU {vcpu.id}: {address:#x} is beyond what a root of {root_level(vcpu.mmu)} levels reaches; no access of the guest forms it"
        )
    if result == -cython.cast(cython.int, Errno.EFAULT):
        raise HostFault(f"vCPU {vcpu.id}: the host cannot give the page behind {address:#x}")
    if result == -cython.cast(cython.int, Errno.EINVAL):
        raise HostFault(f"vCPU {vcpu.id}: an entry on the path of {address:#x} has reserved bits")
    raise OutOfPages(f"vCPU {vcpu.id}: no shadow page left for the fault at {address:#x}; raise shadow_pages")
