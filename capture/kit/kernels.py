# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that can be captured: where Debian has them, what is loaded, and how their MMU's entry points are named."""

from __future__ import annotations

from typing import NamedTuple

from kit.errors import KitError

KVM_MODULES = ("virt/lib/irqbypass", "drivers/crypto/ccp/ccp", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-amd")
DISK = "drivers/block/virtio_blk"
VIRTIO = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci",
)  # fmt: skip

RoleBits = tuple[tuple[str, int, int], ...]
_ROLE: RoleBits = (
    ("level", 0, 4), ("four_byte", 4, 1), ("quadrant", 5, 2), ("direct", 7, 1), ("access", 8, 3), ("invalid", 11, 1),
    ("efer_nx", 12, 1), ("cr0_wp", 13, 1), ("smep_andnot_wp", 14, 1), ("smap_andnot_wp", 15, 1), ("ad_disabled", 16, 1),
    ("guest_mode", 17, 1), ("passthrough", 18, 1), ("smm", 24, 8),
)  # fmt: skip
"""union kvm_mmu_page_role: name, lowest bit, bits."""
_ROLE_RWUX: RoleBits = (
    ("level", 0, 4), ("four_byte", 4, 1), ("quadrant", 5, 2), ("direct", 7, 1), ("access", 8, 4), ("invalid", 12, 1),
    ("efer_nx", 13, 1), ("cr0_wp", 14, 1), ("smap_andnot_wp", 15, 1), ("ad_disabled", 16, 1), ("guest_mode", 17, 1),
    ("passthrough", 18, 1), ("is_mirror", 19, 1), ("cr4_smep", 20, 1), ("smm", 24, 8),
)  # fmt: skip
_COMMON_PROBES = (
    "p:kvroot/load_pgd kvm_amd:svm_load_mmu_pgd root=%si:x64 level=%dx:s32",
    "p:kv/load_pgd kvm_amd:svm_load_mmu_pgd root=%si:x64 level=%dx:s32",
    "p:kv/mmu_load kvm:kvm_mmu_load",
    "p:kv/new_pgd kvm:kvm_mmu_new_pgd pgd=%si:x64",
    "p:kv/free_roots kvm:kvm_mmu_free_roots roots=%dx:x64",
    "p:kv/free_guest_mode_roots kvm:kvm_mmu_free_guest_mode_roots",
    "p:kv/mmu_unload kvm:kvm_mmu_unload",
    "p:kv/reset_context kvm:kvm_mmu_reset_context",
    "p:kv/invlpg kvm:kvm_mmu_invlpg gva=%si:x64",
    "p:kv/invpcid_gva kvm:kvm_mmu_invpcid_gva gva=%si:x64 pcid=%dx:x64",
    "p:kv/sync_roots kvm:kvm_mmu_sync_roots",
    "p:kv/sync_prev_roots kvm:kvm_mmu_sync_prev_roots",
    "p:kv/mmu_page_fault kvm:kvm_mmu_page_fault addr=%si:x64 err=%dx:x64",
    "r:kv/mmu_page_fault_ret kvm:kvm_mmu_page_fault ret=$retval:s32",
    "p:kv/slot_remove_write kvm:kvm_mmu_slot_remove_write_access level=%dx:s32",
    "p:kv/slot_leaf_clear_dirty kvm:kvm_mmu_slot_leaf_clear_dirty",
    "p:kv/write_protect_pt_masked kvm:kvm_arch_mmu_enable_log_dirty_pt_masked gfn_off=%dx:x64 mask=%cx:x64",
    "p:kv/guest_tlb_flush kvm:kvm_service_local_tlb_flush_requests",
)  # fmt: skip
"""Tracepoints see the inside of the MMU; these see who calls it. Arguments in the registers of the x86-64 ABI."""
_PTE_WRITE = "gpa=%si:x64 bytes=%cx:s32 val=+0(%dx):x64"
_UNPROTECT = (
    "p:kv/unprotect_gfn kvm:__kvm_mmu_unprotect_gfn_and_retry addr=%si:x64 always=%dx:u8",
    "r:kv/unprotect_gfn_ret kvm:__kvm_mmu_unprotect_gfn_and_retry ret=$retval:u8",
)
_ZAP_OLDEST = "p:kv/zap_oldest kvm:kvm_mmu_zap_oldest_mmu_pages"


class Kernel(NamedTuple):
    """One series of Linux, as Debian packages it."""

    name: str
    packages: tuple[str, ...]
    """Patterns of the packages' names; the first group orders them, the newest is taken. The rest is of the same version."""
    source: tuple[str, ...]
    """Lines of the kit's own apt configuration: suites of deb.debian.org."""
    modules: tuple[str, ...]
    """What is loaded, in this order: a disk to write to, and KVM with what it needs."""
    probes: tuple[str, ...]
    role: RoleBits
    compiler: tuple[str, ...] = ()
    """Packages of what its modules are built with, if that is not Debian 12's own."""


_SUITES = {
    "bookworm": "http://deb.debian.org/debian bookworm main",
    "bookworm-security": "http://deb.debian.org/debian-security bookworm-security main",
    "trixie": "http://deb.debian.org/debian trixie main",
    "trixie-backports": "http://deb.debian.org/debian trixie-backports main",
}
KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            name="6.1",
            packages=(r"linux-image-6\.1\.0-(\d+)-amd64",),
            source=(_SUITES["bookworm"], _SUITES["bookworm-security"]),
            modules=(*VIRTIO, DISK, *KVM_MODULES),
            probes=(
                *_COMMON_PROBES,
                "p:kv/invalidate_gva kvm:kvm_mmu_invalidate_gva gva=%dx:x64 root=%cx:x64",
                f"p:kv/pte_write kvm:kvm_mmu_pte_write {_PTE_WRITE}",
                "p:kv/unprotect_page kvm:kvm_mmu_unprotect_page gfn=%si:x64",
                "p:kv/zap_collapsible kvm:kvm_mmu_zap_collapsible_sptes",
                _ZAP_OLDEST,
            ),
            role=_ROLE,
        ),
        Kernel(
            name="6.12",
            packages=(r"linux-image-6\.12\.(\d+)\+deb12-amd64",),
            source=(_SUITES["bookworm"], _SUITES["bookworm-security"]),
            modules=(DISK, *KVM_MODULES),
            probes=(
                *_COMMON_PROBES,
                "p:kv/invalidate_gva kvm:kvm_mmu_invalidate_addr gva=%dx:x64 root=%cx:x64",
                f"p:kv/pte_write kvm:kvm_mmu_track_write {_PTE_WRITE}",
                *_UNPROTECT,
                "p:kv/zap_collapsible kvm:kvm_mmu_zap_collapsible_sptes",
                _ZAP_OLDEST,
            ),
            role=_ROLE,
        ),
        Kernel(
            name="7.3",
            packages=(r"linux-binary-7\.3\.(\d+)\+deb13-amd64", r"linux-modules-7\.3\.(\d+)\+deb13-amd64"),
            source=(_SUITES["trixie"], _SUITES["trixie-backports"]),
            modules=(DISK, *KVM_MODULES),
            probes=(
                *_COMMON_PROBES,
                "p:kv/invalidate_gva kvm:kvm_mmu_invalidate_addr gva=%dx:x64 root=%cx:x64",
                f"p:kv/pte_write kvm:kvm_mmu_track_write {_PTE_WRITE}",
                *_UNPROTECT,
                "p:kv/zap_collapsible kvm:kvm_mmu_recover_huge_pages",
            ),
            role=_ROLE_RWUX,
            compiler=("gcc-14-x86-64-linux-gnu", "libelf1t64", "libssl3t64"),
        ),
    )
}
"""By the name that --kernel takes, oldest first."""


def kernel_of(name: str) -> Kernel:
    if name not in KERNELS:
        raise KitError(f"there is no kernel {name} to capture: give one of {', '.join(KERNELS)}")
    return KERNELS[name]


def kernel_of_release(uname: str) -> Kernel:
    """The series of a captured kernel, by what `uname -a` told."""
    release = uname.split()[2] if len(uname.split()) > 2 else uname.strip()
    for kernel in KERNELS.values():
        if release.startswith(kernel.name + "."):
            return kernel
    raise KitError(f"the run is of Linux {release}, of which the kit knows nothing: it knows {', '.join(KERNELS)}")
