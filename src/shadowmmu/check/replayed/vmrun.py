# SPDX-License-Identifier: GPL-2.0-only
"""VMRUN and #VMEXIT: what of L1's VMCB in guest memory the MMU needs (APM vol. 2 appendix B)."""

from __future__ import annotations

import struct

from shadowmmu import PageFaultException, Vcpu, Vm
from shadowmmu.trace.events import NestedVmexitInject
from shadowmmu.x86.control import Efer
from shadowmmu.x86.vmcb import SvmExit, Vmcb

_SVME = int(Efer.SVME)


def _read(vm: Vm, at: int) -> int:
    return int.from_bytes(vm.read_guest(at, 8), "little")


def vmcb_state(vm: Vm, vmcb: int) -> tuple[int, int, int, int, int | None]:
    """CR0, CR3, CR4, EFER of L2, and L1's nested CR3 (None: nested paging off)."""
    ncr3 = _read(vm, vmcb + Vmcb.N_CR3) if _read(vm, vmcb + Vmcb.NESTED_PAGING) & 1 else None
    return (_read(vm, vmcb + Vmcb.CR0), _read(vm, vmcb + Vmcb.CR3), _read(vm, vmcb + Vmcb.CR4), _read(vm, vmcb + Vmcb.EFER) & ~_SVME, ncr3)


def leave(vm: Vm, vcpu: Vcpu, vmcb: int, at_entry: bool) -> bool:
    """#VMEXIT: L2's registers are stored into the VMCB, L1's come back. False: those are illegal."""
    for at, value in ((Vmcb.CR0, vcpu.cr0), (Vmcb.CR3, vcpu.cr3), (Vmcb.CR4, vcpu.cr4), (Vmcb.EFER, vcpu.efer | _SVME)):
        vm.write_guest(vmcb + at, struct.pack("<Q", value))
    return bool(vcpu.nested_vmexit(at_entry=at_entry))


def compare_exit(theirs: NestedVmexitInject, ours: PageFaultException | None) -> str:
    """L1 gets a fault of L2's: its own nested page fault, or a #PF that it takes. How the kernel's and the engine's differ, or nothing."""
    code, address, nested = theirs.exit_info1 & 0xFFFF_FFFF, theirs.exit_info2, theirs.exit_code != int(SvmExit.PAGE_FAULT)
    if ours is not None and ours.nested == nested and (ours.error_code & 0xFFFF_FFFF, ours.cr2) == (code, address):
        return ""
    return f"the kernel gives L1 a {'nested page fault' if nested else '#PF'} {code:x} at {address:x}, the engine {ours}"
