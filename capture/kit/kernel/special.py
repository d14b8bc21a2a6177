# SPDX-License-Identifier: GPL-2.0-only
"""Special roots in Linux 6.1, 6.12 and 7.3: where the kernel's own functions change. What is new stands in kernel/special_roots.c.

Most edits are the same for all three. The others have a reason of their own: since 6.12 a root outside memory is a dummy
root, which is no shadow page; since 7.3 the guest's paging is described in a struct of its own, kvm_pagewalk.
"""

from __future__ import annotations

from kit.kernel.source import COMMENT, WHOLE, Edit

MMU, WALKER, HOST = "kvm/mmu/mmu.c", "kvm/mmu/paging_tmpl.h", "include/asm/kvm_host.h"
SPTE, SPTE_H = "kvm/mmu/spte.c", "kvm/mmu/spte.h"

_PAGES = (
    Edit("kvm/mmu/mmu_internal.h", "struct kvm_mmu_page", r"\n\t(atomic_t write_flooding_count|bool has_mapped_host_mmio);\n",
         "\\g<0>\n\tbool special;\t\t/* Local to its vCPU, see special_roots.c. */\n"
         "\tbool in_pae_root;\t/* Its table is mmu->pae_root. */\n",
         "R4, H1: a page says itself that it is special; in a hole of the struct"),
    Edit(HOST, "struct kvm_mmu", r"\tu64 \*pml4_root;\n\tu64 \*pml5_root;\n", "",
         "R1: the levels above pae_root are special pages"),
    Edit(MMU, "kvm_mmu_child_role", "", '#include "special_roots.c"\n\n',
         "R2: the allocator of special pages, in front of its first use"),
    Edit(MMU, "kvm_mmu_child_role", r"\t\tWARN_ON_ONCE\(role\.level != PG_LEVEL_4K\);\n", "",
         "R13: level-2 pages are children too, of a special page"),
    Edit(MMU, "kvm_mmu_child_role", r"spte_index\(sptep\) & 1;", "spte_index(sptep) & (role.level == PG_LEVEL_4K ? 1 : 3);",
         "H13: below a special page the quadrant has two bits"),
    Edit(MMU, "kvm_mmu_get_child_sp", r"(?=\treturn kvm_mmu_get_shadow_page)",
         "\tif (is_special_child(sptep, role))\n\t\treturn alloc_special_page(vcpu, role);\n\n",
         "R13: diverts to the allocator, behind the comparison with what is linked (H4, H8)"),
    Edit(MMU, "__link_shadow_page", r"make_nonleaf_spte\(sp->spt, sp_ad_disabled\(sp\)\)", "make_link_spte(sptep_to_sp(sptep), sp)",
         "R10, H11: linked as any other; a PDPTE has its own format"),
)  # fmt: skip
_WALKS = (
    Edit(MMU, "struct kvm_shadow_walk_iterator", r"\tunsigned index;\n", "\\g<0>\tbool special;\n",
         "H2: a walk knows whether its root is special"),
    Edit(MMU, "shadow_walk_init_using_root", r"iterator->level = vcpu->arch\.mmu->root_role\.level;.*\Z",
         "iterator->level = to_shadow_page(root)->role.level;\n\titerator->special = to_shadow_page(root)->special;\n}\n",
         "R10: walked from the root, at the root's own level, whatever mode the MMU has by now (H1)"),
    Edit(MMU, "shadow_walk_okay", r"\titerator->index = [^\n]*\n", "\\g<0>\titerator->index = special_index(iterator);\n",
         "H2: the index into a special level-3 page is bounded"),
    Edit(MMU, "get_mmio_spte", r"is_rsvd_spte\(rsvd_check, sptes\[level\], level\);",
         "is_rsvd_spte(rsvd_check, without_cpu_bits(vcpu, sptes[level], level), level);",
         "H11: PDPTEs are looked at now, and QEMU's CPU sets A in them"),
    Edit(WALKER, "FNAME(walk_addr_generic)", r"if \(unlikely\(errcode\)\)",
         "if (unlikely(errcode || is_beyond_guest_tables(walker->max_level, addr)))",
         "H2: an L2 address beyond 4 GiB is a fault for the 32-bit L1"),
    Edit(WALKER, "FNAME(fetch)", r"= gw->table_gfn\[it\.level - 2\];", "= it.level - 1 > top_level ? 0 : gw->table_gfn[it.level - 2];",
         "H6: nothing is taken from the walk for levels above the guest's"),
    Edit(WALKER, "FNAME(fetch)", r"= gw->pt_access\[it\.level - 2\];",
         "= it.level - 1 >= top_level && top_level <= PT32E_ROOT_LEVEL ? ACC_ALL : gw->pt_access[it.level - 2];",
         "H6, H8: the guest's top table inherits nothing, as in mmu_alloc_root"),
    Edit(WALKER, "FNAME(fetch)", r"if \((FNAME\(gpte_changed\)\(vcpu, gw, it\.level - 1\))\)", r"if (it.level - 1 <= top_level && \1)",
         "H3: every level of the guest's own is read again behind its write-protection, the top one too"),
)  # fmt: skip
_ROOTS = (
    Edit(MMU, "mmu_alloc_direct_roots",
         r"\} else if \(shadow_root_level == PT32E_ROOT_LEVEL\) \{.*?mmu->root\.hpa = __pa\(mmu->pae_root\);\n",
         "} else if (wants_special_root(mmu)) {\n\t\tload_special_root(vcpu);\n",
         "R13: the root of a nonpaging guest; made when pages are available (H18)"),
    Edit(MMU, "mmu_alloc_direct_roots", r"\tunsigned i;\n", "", "R13: no loop over four pages is left"),
    Edit(MMU, "mmu_alloc_shadow_roots",
         rf"{COMMENT}\tif \(\w+->cpu_role\.base\.level == PT32E_ROOT_LEVEL\) \{{\n\t\tfor .*?(?=\tr = mmu_first)", "",
         "R7, R13: no PDPTE is read at the load"),
    Edit(MMU, "mmu_alloc_shadow_roots", r"\tif \(WARN_ON_ONCE\(!mmu->pae_root\)\) \{.*(?=set_root_pgd:)", "\tload_special_root(vcpu);\n\n",
         "R13: the root of 2-level and PAE tables; made when pages are available (H18)"),
    Edit(MMU, "mmu_alloc_shadow_roots", r"\tu64 pdptrs\[4\], pm_mask;\n", "", "R13: no PDPTE is read at the load"),
    Edit(MMU, "mmu_alloc_shadow_roots", r"\tint quadrant, i, r;", "\tint r;", "R13: no loop over four pages is left"),
    Edit(MMU, "mmu_alloc_special_roots", WHOLE, "", "R1: pml4_root and pml5_root are gone"),
    Edit(MMU, "kvm_mmu_load", r"mmu_alloc_special_roots\(vcpu\)", "alloc_pae_root(vcpu)", "R2, H17: pae_root on demand, before the lock"),
    Edit(MMU, "__kvm_mmu_create", r"(KVM_MMU_ROOT_INFO_INVALID;\n).*(\treturn 0;\n\}\n)\Z", r"\1\n\2", "R2: pae_root on demand"),
    Edit(MMU, "__kvm_mmu_create", r"\tstruct page \*page;\n", "", "R2: pae_root on demand"),
    Edit(MMU, "free_mmu_pages", r"\tfree_page\(\(unsigned long\)mmu->pml4_root\);\n\tfree_page\(\(unsigned long\)mmu->pml5_root\);\n", "",
         "R1: pml4_root and pml5_root are gone"),
    Edit(MMU, "kvm_mmu_sync_roots", r"\tif \(vcpu->arch\.mmu->[^\n]*PT64_ROOT_4LEVEL\) \{.*\Z",
         "\tif (!is_unsync_root(vcpu->arch.mmu->root.hpa))\n\t\treturn;\n\n\tsp = to_shadow_page(vcpu->arch.mmu->root.hpa);\n"
         "\twrite_lock(&vcpu->kvm->mmu_lock);\n\tmmu_sync_children(vcpu, sp, true);\n\twrite_unlock(&vcpu->kvm->mmu_lock);\n}\n",
         "R10: a special root is synced from its own page like any other"),
    Edit(MMU, "kvm_mmu_sync_roots", r"\tint i;\n", "", "R10: no loop over four pages is left"),
)  # fmt: skip
_SHARED = _PAGES + _WALKS + _ROOTS

_EVERY_ROOT_A_PAGE = (
    Edit(MMU, "kvm_mmu_free_roots", r"\t\tif \(to_shadow_page\(mmu->root\.hpa\)\) \{.*(?=\t\tmmu->root\.hpa = INVALID_PAGE;)",
         "\t\tif (is_special_root(mmu))\n\t\t\tfree_special_root(kvm, mmu);\n\t\telse\n"
         "\t\t\tmmu_free_root_page(kvm, &mmu->root.hpa, &invalid_list);\n",
         "R8, R14: freed at once, from the top; as what it is, not as what the mode says (H1)"),
    Edit(MMU, "fast_pgd_switch", r"!to_shadow_page\(mmu->root\.hpa\)", "is_special_root(mmu)",
         "R9: never kept in prev_roots; the root itself is asked (H1)"),
    Edit(MMU, "is_obsolete_root", r"!sp \|\| is_obsolete_sp", "is_obsolete_sp", "R11: every root has a generation, and is asked"),
    Edit(MMU, "is_page_fault_stale", rf"{COMMENT}\tif \(!sp && [^\n]*\n\t\treturn true;\n\n", "",
         "R11: every root has a generation, and is asked"),
)  # fmt: skip
_DUMMY_ROOTS = (
    Edit(MMU, "kvm_mmu_free_roots", r"(?<=else if \()root_to_sp\(mmu->root\.hpa\)\) \{.*(?=\t\tmmu->root\.hpa = INVALID_PAGE;)",
         "is_special_root(mmu)) {\n\t\t\tfree_special_root(kvm, mmu);\n\t\t} else {\n"
         "\t\t\tmmu_free_root_page(kvm, &mmu->root.hpa, &invalid_list);\n\t\t}\n",
         "R8, R14: freed at once, from the top; as what it is, not as what the mode says (H1)"),
    Edit(MMU, "fast_pgd_switch", r"!root_to_sp\(mmu->root\.hpa\)", "(!root_to_sp(mmu->root.hpa) || is_special_root(mmu))",
         "R9: never kept in prev_roots, as a dummy root is not; the root itself is asked (H1)"),
    Edit(WALKER, "FNAME(fetch)", r"(?<=if \()fault->write && table_gfn == fault->gfn",
         "(top_level > PT32_ROOT_LEVEL || it.level - 1 < top_level) && fault->write && table_gfn == fault->gfn",
         "H6: a level above 32-bit tables is no table of gfn 0; the top one of these counts for none, as below pae_root before"),
)  # fmt: skip
_PAGEWALK = (
    Edit(MMU, "shadow_walk_init_using_root", r"\tstruct kvm_pagewalk \*w = vcpu->arch\.mmu->w;\n\n", "",
         "R10: walked from the root; the guest's paging is not asked"),
    Edit(SPTE_H, "kvm_vcpu_can_access_host_mmio", r"if \(root\)", "if (root && !root->special)",
         "R8: what a special page knows is gone with its root, but not the children that map the host's MMIO: the VM remembers"),
    Edit(SPTE, "kvm_track_host_mmio_mapping", r"if \(root\)", "if (root && !root->special)", "R8: as kvm_vcpu_can_access_host_mmio"),
)  # fmt: skip
SPECIAL = {
    "6.1": _SHARED + _EVERY_ROOT_A_PAGE,
    "6.12": _SHARED + _DUMMY_ROOTS,
    "7.3": _SHARED + _DUMMY_ROOTS + _PAGEWALK,
}
"""By series of the kernel."""
