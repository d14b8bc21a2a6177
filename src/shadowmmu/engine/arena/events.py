# SPDX-License-Identifier: GPL-2.0-only
"""Events: fixed-size records in a buffer outside the arena. Kinds and fields are in ``events.pxd``.

Inline in the .pxd, since it runs in every fault: `emit`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import EventRecordPtr, KvmPtr, ShadowPagePtr, host_pa, u64


def record(kvm: KvmPtr, vcpu: cython.int, kind: Event, a0: u64, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> cython.void:
    """Append one record; when the buffer is full the event is counted as lost instead."""
    if kvm.nevents == kvm.max_events:
        kvm.lost_events += 1
        return
    entry: EventRecordPtr = cython.address(kvm.events[kvm.nevents])
    kvm.nevents += 1
    entry.kind = kind
    entry.vcpu = vcpu
    entry.a[0] = a0
    entry.a[1] = a1
    entry.a[2] = a2
    entry.a[3] = a3
    entry.a[4] = a4
    entry.a[5] = a5


def emit_sp(kvm: KvmPtr, vcpu: cython.int, kind: Event, sp: ShadowPagePtr, created: cython.int) -> cython.void:
    """Tell of a shadow page: gfn, role, packed state, root_count, table address.

    `vcpu` is the one that looks a page up. What becomes of a page later (zap, sync, unsync) is the VM's affair: the kernel's
    functions are given no vCPU, and neither are ours.
    """
    if kvm.events == cython.NULL:
        return
    state: u64 = sp.mmu_valid_gen | cython.cast(u64, sp.unsync) << 8 | cython.cast(u64, created) << 9
    state |= cython.cast(u64, sp.special) << 10
    record(kvm, vcpu, kind, sp.gfn, sp.role, state, sp.root_count, host_pa(kvm, sp.spt), 0)
