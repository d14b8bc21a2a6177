# SPDX-License-Identifier: GPL-2.0-only
"""From a `VmConfig` to an arena: kvm_create_vm and what kvm_mmu_init_vm sets, with memory as the host has it at first."""

import cython
from cython.cimports.libc.string import memset
from cython.cimports.shadowmmu.engine.arena.pools import init_host_memory, size_pools
from cython.cimports.shadowmmu.engine.arena.spte import set_masks
from cython.cimports.shadowmmu.engine.arena.state import Kvm, KvmPtr, RulesPtr, create
from cython.cimports.shadowmmu.engine.face.fence import fence_arena
from cython.cimports.shadowmmu.engine.roots.designs import set_root_ops

from shadowmmu.engine.face.kernels import rules_of


@cython.cfunc
def describe_guest(kvm: KvmPtr, config: object) -> object:
    """The constants of the guest."""
    kvm.nvcpus = config.vcpus
    kvm.maxphyaddr = config.maxphyaddr
    kvm.cr4_reserved = config.cr4_reserved
    kvm.efer_reserved = config.efer_reserved
    kvm.guest_1g = config.has_1g
    kvm.guest_amd = config.amd
    return None


@cython.cfunc
def describe_host(kvm: KvmPtr, config: object) -> object:
    """kvm_configure_mmu: the constants of the host's CPU and of KVM on it."""
    kvm.vmx = config.vendor == "vmx"
    kvm.tdp = bool(config.tdp)
    kvm.ept = kvm.tdp and kvm.vmx
    kvm.ept_ad = kvm.ept
    kvm.ept_exec_only = kvm.ept
    kvm.host_levels = config.host_levels
    kvm.host_maxphyaddr = config.host_maxphyaddr
    kvm.mmio_caching = bool(config.mmio_caching)
    kvm.max_huge_level = config.max_huge_level
    kvm.nx_huge_pages = bool(config.nx_huge_pages)
    set_root_ops(cython.address(kvm.root_ops), config.roots)
    kvm.eager_page_split = bool(config.eager_page_split)
    return None


@cython.cfunc
def describe_kernel(rules: RulesPtr, told: frozenset) -> object:
    """What its shadow MMU does otherwise."""
    rules.sync_keeps = "sync_keeps" in told
    rules.sync_keeps_accessed = "sync_keeps_accessed" in told
    rules.invlpg_syncs = "invlpg_syncs" in told
    rules.hides_root = "hides_root" in told
    rules.hides_pdpte = "hides_pdpte" in told
    rules.masks_root_gfn = "masks_root_gfn" in told
    rules.wp_needs_paging = "wp_needs_paging" in told
    rules.sregs_flush = "sregs_flush" in told
    rules.wide_error_code = "wide_error_code" in told
    rules.ignores_self_change = "ignores_self_change" in told
    rules.retries_zapped = "retries_zapped" in told
    rules.retries_tables = "retries_tables" in told
    rules.unprotects_late = "unprotects_late" in told
    rules.nx_marks_nonpaging = "nx_marks_nonpaging" in told
    rules.nx_keeps_marked = "nx_keeps_marked" in told
    rules.smep_in_role = "smep_in_role" in told
    rules.npt_role_plain = "npt_role_plain" in told
    rules.dirties_writable = "dirties_writable" in told
    rules.zaps_written_child = "zaps_written_child" in told
    rules.short_mmio_gen = "short_mmio_gen" in told
    rules.nonpresent_bit_63 = "nonpresent_bit_63" in told
    rules.lifts_no_ept = "lifts_no_ept" in told
    rules.moved_ept_bits = "moved_ept_bits" in told
    rules.flushes_write_alone = "flushes_write_alone" in told
    rules.ad_bits_always = "ad_bits_always" in told
    rules.vmrun_drops_lma = "vmrun_drops_lma" in told
    rules.vmrun_reloads_pdptes = "vmrun_reloads_pdptes" in told
    rules.zaps_slot_alone = "zaps_slot_alone" in told
    rules.mmio_loads_walk = "mmio_loads_walk" in told
    return None


def create_vm(config: object) -> KvmPtr:
    """kvm_mmu_init_vm: the arena of a VM without memslots and with vCPUs that are not yet made. Raises MemoryError."""
    constants: Kvm
    memset(cython.address(constants), 0, cython.sizeof(Kvm))
    describe_guest(cython.address(constants), config)
    describe_host(cython.address(constants), config)
    describe_kernel(cython.address(constants.rules), rules_of(config.kernel))
    user_mib: object = config.user_mib or config.memory_mib
    size_pools(cython.address(constants), config.memory_mib, user_mib, config.table_pages or 2 * config.shadow_pages)
    kvm: KvmPtr = create(cython.address(constants))
    if kvm == cython.NULL:
        raise MemoryError(f"no memory for an arena of a VM with {config.memory_mib} MiB; ask for less memory_mib")
    fence_arena(kvm)
    set_masks(kvm)
    init_host_memory(kvm)
    kvm.n_requested_mmu_pages = config.shadow_pages
    kvm.n_max_mmu_pages = config.shadow_pages or kvm.npages_pool // 2
    return kvm
