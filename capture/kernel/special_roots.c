// SPDX-License-Identifier: GPL-2.0-only
/*
 * Special shadow pages: roots for which the guest has no table. Part of mmu.c.
 *
 * A special page holds the four PDPTEs above the level-2 pages of a 32-bit, PAE or nonpaging guest, or is one of
 * the levels above such a page when a 32-bit L1's NPT is shadowed on a 64-bit host (R1). It is a shadow page like
 * any other: linked, unlinked, walked, marked unsync and synced by the common code (R10).
 *
 * But it is local to its vCPU. It is not in active_mmu_pages and not in the hash, so no other vCPU finds it (R4),
 * except through parent_ptes of its children (R5). It shadows no gfn, so it is neither accounted (R6) nor
 * write-protected (R7), and is never zapped: it lives exactly as long as its root (R8). It is never kept in
 * prev_roots, because a cached root is recognised by CR3 where this one is made of PDPTEs, and because there is
 * only one pae_root (R9).
 *
 * It can be obsolete, and right again. When zap_all_fast is over, every obsolete child has been unlinked from it
 * through the child's rmap; a vCPU that was preempted across two of them finds the one-bit generation right, and
 * the page empty (R11, R12). No special page is needed to know that: is_obsolete_sp() asks it as any other.
 *
 * The engine's files are engine/shadow/special.py and engine/roots/special_roots.py, with the same names.
 */

/* What Linux 6.1, 6.12 and 7.3 spell otherwise: the level of the guest's own paging, and an entry that is absent. */
#include <linux/version.h>
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 3, 0)
#define guest_level(mmu) ((mmu)->cpu_role.base.level)
#else
#define guest_level(mmu) ((mmu)->w->cpu_role.base.level)
#endif
#ifndef SHADOW_NONPRESENT_VALUE
#define SHADOW_NONPRESENT_VALUE 0
#endif

/* The root to be made for these roles has no guest table: three shadow levels, or above 32-bit NPT (R1). */
static bool wants_special_root(struct kvm_mmu *mmu)
{
	return mmu->root_role.level == PT32E_ROOT_LEVEL || (!mmu->root_role.direct && guest_level(mmu) <= PT32E_ROOT_LEVEL);
}

/*
 * The root's own page is asked, as the MMU's mode may have changed since it was made (H1, H9). A dummy root, which later
 * kernels give a guest whose root is not in memory, has none.
 */
static bool is_special_root(struct kvm_mmu *mmu)
{
	struct kvm_mmu_page *sp = to_shadow_page(mmu->root.hpa);

	return sp && sp->special;
}

/*
 * A special level-3 page has four entries: an address beyond 4 GiB must not fill others, which no guest table stands
 * behind (H2).
 */
static unsigned int special_index(struct kvm_shadow_walk_iterator *it)
{
	return it->special && it->level == PT32E_ROOT_LEVEL ? it->index & 3 : it->index;
}

/*
 * 32-bit tables, of PAE those below the PDPTEs, reach no further than 4 GiB, beyond which an L2 address may lie: L1 is
 * given the fault (H2).
 */
static bool is_beyond_guest_tables(unsigned int top_level, u64 addr)
{
	return addr >> 32 && top_level <= PT32_ROOT_LEVEL;
}

/*
 * A PDPTE of PAE paging: W, U, A and NX are reserved there (H11). SPTE_MMU_PRESENT is set as in every entry, so
 * that the common code takes it for one (R10).
 */
static u64 make_pdpte(u64 *child_pt)
{
	return __pa(child_pt) | PT_PRESENT_MASK | SPTE_MMU_PRESENT_MASK | shadow_me_value;
}

/* The entry of a parent that leads to this page. */
static u64 make_link_spte(struct kvm_mmu_page *parent, struct kvm_mmu_page *sp)
{
	return parent->in_pae_root ? make_pdpte(sp->spt) : make_nonleaf_spte(sp->spt, sp_ad_disabled(sp));
}

/* Put a level-3 root's table where a 32-bit CR3 reaches it, emptied: freed entries must not come back (H5). */
static void use_pae_root(struct kvm_mmu *mmu, struct kvm_mmu_page *sp)
{
	sp->in_pae_root = true;
	sp->spt = mmu->pae_root;
	memset64(sp->spt, SHADOW_NONPRESENT_VALUE, SPTE_ENT_PER_PAGE);
}

/*
 * A special page with this role: gfn 0, no translations, the present generation (R2, R3). It enters neither the
 * hash nor active_mmu_pages (R4), and no counter (R6). Access and gfn are what is compared on reuse: ACC_ALL and 0,
 * as the callers give them (H8).
 */
static struct kvm_mmu_page *alloc_special_page(struct kvm_vcpu *vcpu, union kvm_mmu_page_role role)
{
	struct kvm_mmu *mmu = vcpu->arch.mmu;
	struct kvm_mmu_page *sp = kvm_mmu_memory_cache_alloc(&vcpu->arch.mmu_page_header_cache);

	sp->special = true;
	sp->gfn = 0;
	sp->role = role;
	sp->mmu_valid_gen = vcpu->kvm->arch.mmu_valid_gen;
	if (role.level == PT32E_ROOT_LEVEL && mmu->root_role.level == PT32E_ROOT_LEVEL)
		use_pae_root(mmu, sp);
	else
		sp->spt = kvm_mmu_memory_cache_alloc(&vcpu->arch.mmu_shadow_page_cache);
	set_page_private(virt_to_page(sp->spt), (unsigned long)sp);
	return sp;
}

/* Getting the root diverts to the allocator of special pages (R13): it starts empty, and no PDPTE is read. */
static void load_special_root(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu *mmu = vcpu->arch.mmu;

	mmu->root.hpa = __pa(alloc_special_page(vcpu, mmu->root_role)->spt);
}

/* Below a special page, levels 3 and above are special too (R13): no hash, no trace, no statistics. */
static bool is_special_child(u64 *sptep, union kvm_mmu_page_role role)
{
	return sptep_to_sp(sptep)->special && role.level >= PT32E_ROOT_LEVEL;
}

/*
 * Unlink every child, then give the page back at once; pae_root stays, but no longer points to us (H7). A level-3
 * page has four entries, one above it has one, as special_index() bounds them: children keep a pointer to each entry
 * that is not unlinked (H2). No invalid list is handed on, so no child is zapped with its parent (R15).
 */
static void free_special_page(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	int i, count = sp->role.level == PT32E_ROOT_LEVEL ? 4 : 1;

	for (i = 0; i < count; i++)
		mmu_page_zap_pte(kvm, sp, sp->spt + i, NULL);
	set_page_private(virt_to_page(sp->spt), 0);
	if (!sp->in_pae_root)
		free_page((unsigned long)sp->spt);
	kmem_cache_free(mmu_page_header_cache, sp);
}

/*
 * Free a special root at once, on no invalid list (R8): levels 5 and 4 down to 3, each before its child (R14). A
 * level-3 page is made on demand, so the chain may end early; then nothing below is touched (H16). The level-2
 * children survive, parentless, in the hash. Only the vCPU that owns the root comes here, under mmu_lock, and its
 * next load flushes (H14).
 */
static void free_special_root(struct kvm *kvm, struct kvm_mmu *mmu)
{
	struct kvm_mmu_page *sp = to_shadow_page(mmu->root.hpa);
	u64 link;

	while (sp->role.level > PT32E_ROOT_LEVEL) {
		link = sp->spt[0];
		free_special_page(kvm, sp);
		if (!is_shadow_present_pte(link))
			return;
		sp = spte_to_child_sp(link);
	}
	if (WARN_ON_ONCE(!sp->special || sp->role.level != PT32E_ROOT_LEVEL))
		return;
	free_special_page(kvm, sp);
}

/*
 * The page below 4 GiB for a PAE root, on demand: most vCPUs never have one. The CPU reads its PDPTEs unencrypted,
 * as CR3 has no room for the C-bit. On an error no root has been made, and the next load tries again (H17).
 */
static int alloc_pae_root(struct kvm_vcpu *vcpu)
{
	struct kvm_mmu *mmu = vcpu->arch.mmu;
	struct page *page;

	if (mmu->pae_root || mmu->root_role.level != PT32E_ROOT_LEVEL)
		return 0;
	page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_DMA32);
	if (!page)
		return -ENOMEM;
	mmu->pae_root = page_address(page);
	if (!tdp_enabled)
		set_memory_decrypted((unsigned long)mmu->pae_root, 1);
	else
		WARN_ON_ONCE(shadow_me_value);
	return 0;
}

/* QEMU's CPU sets A in PDPTEs, where it is reserved: no entry of ours has it. */
static u64 without_cpu_bits(struct kvm_vcpu *vcpu, u64 spte, int level)
{
	bool pdpte = level == PT32E_ROOT_LEVEL && vcpu->arch.mmu->root_role.level == PT32E_ROOT_LEVEL;

	return pdpte ? spte & ~PT_ACCESSED_MASK : spte;
}
