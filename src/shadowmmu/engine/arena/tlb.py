# SPDX-License-Identifier: GPL-2.0-only
"""Requests to vCPUs, and what the hardware's TLB must drop.

A request kicks the vCPU out of the guest and is served before it enters again, in the order of `requests`.
The engine never touches hardware: it notes what must be flushed and the machine does it at guest entry.

Inline in the .pxd, since they run in every fault: `make_request`, `test_request`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import MAX_GVA_FLUSHES, KvmPtr, KvmVcpuPtr, Request, gva_t


def make_all_request(kvm: KvmPtr, request: Request) -> cython.void:
    """kvm_make_all_cpus_request: each vCPU does it before it runs again; none is kicked, as one runs at a time."""
    i: cython.int
    for i in range(kvm.nvcpus):
        make_request(cython.address(kvm.vcpus[i]), request)


def flush_remote_tlbs(kvm: KvmPtr) -> cython.void:
    """Every vCPU drops all translations before it runs again."""
    kvm.stat.remote_tlb_flush_requests += 1
    kvm.stat.remote_tlb_flush += 1
    make_all_request(kvm, Request.REQ_TLB_FLUSH)


def flush_hw_gva(vcpu: KvmVcpuPtr, gva: gva_t) -> cython.void:
    """The vCPU's own TLB entry of one address; many of them become a full flush."""
    if vcpu.flush_gva_count == MAX_GVA_FLUSHES:
        vcpu.flush_hw_all = True
        return
    vcpu.flush_gva[vcpu.flush_gva_count] = gva
    vcpu.flush_gva_count += 1


def flush_hw_all(vcpu: KvmVcpuPtr) -> cython.void:
    vcpu.flush_hw_all = True
