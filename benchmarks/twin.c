// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fault path of the engine in plain C: what the same work costs without Cython and without modules.
 *
 * It does what src/shadowmmu/engine does for a #PF, step by step and in the same order, for any guest format and any
 * memslots: walk the guest's tables with rights, reserved bits and A/D bits; find or make shadow pages through the
 * hash; link them with parent rmaps; make the leaf with the unsync check; enter the gfn's rmap; prefetch the group of
 * eight; count, emit, and ask for flushes. What is decided by data there is decided by data here. Steps that the
 * benchmark's guests never reach (unsync pages, zapping, MMIO, large pages, nesting) end in abort(), so that a run
 * that needs them cannot pass unseen: they are tests in the path, and no work.
 */

#include "twin.h"

#include <stdlib.h>
#include <string.h>

/* --- events and requests */

static void record(struct vm *vm, int vcpu, int kind, u64 a0, u64 a1, u64 a2, u64 a3)
{
    if (vm->nevents == vm->max_events) {
        vm->lost_events++;
        return;
    }
    vm->events[vm->nevents++] = (struct event){ kind, vcpu, { a0, a1, a2, a3 } };
}

static inline void emit(struct vm *vm, int vcpu, int kind, u64 a0, u64 a1, u64 a2, u64 a3)
{
    if (vm->events)
        record(vm, vcpu, kind, a0, a1, a2, a3);
}

static void flush_remote(struct vm *vm)
{
    vm->stat.flush_requests++;
    vm->stat.flush++;
    for (int i = 0; i < vm->nvcpus; i++)
        vm->vcpus[i].requests |= REQ_TLB_FLUSH;
}

/* --- memslots and memory */

static struct slot *search_slots(struct vm *vm, int as_id, u64 gfn)
{
    for (int i = 0; i < MAX_SLOTS; i++) {
        struct slot *slot = &vm->slots[as_id][i];
        if (gfn - slot->base_gfn < slot->npages)
            return vm->last_slot[as_id] = slot;
    }
    return NULL;
}

static inline struct slot *find_slot(struct vm *vm, int as_id, u64 gfn)
{
    struct slot *slot = vm->last_slot[as_id];
    if (slot && gfn - slot->base_gfn < slot->npages)
        return slot;
    return vm->nslots[as_id] ? search_slots(vm, as_id, gfn) : NULL;
}

static inline u64 *gfn_rmap(struct slot *slot, u64 gfn, int level)
{
    int shift = 9 * (level - 1);
    return &slot->rmap[level - 1][(gfn >> shift) - (slot->base_gfn >> shift)];
}

static int write_tracked(struct vm *vm, u64 gfn)
{
    for (int as_id = 0; as_id < ADDRESS_SPACES; as_id++) {
        struct slot *slot = find_slot(vm, as_id, gfn);
        if (slot && slot->track[gfn - slot->base_gfn])
            return 1;
    }
    return 0;
}

static void mark_dirty(struct slot *slot, u64 gfn)
{
    if (!slot || !(slot->flags & SLOT_LOG_DIRTY))
        return;
    u64 index = gfn - slot->base_gfn;
    slot->dirty_bitmap[index >> 6] |= 1ULL << (index & 63);
}

static inline u64 host_mapping(struct vm *vm, struct slot *slot, u64 gfn) { return vm->hva_map[slot->hva + gfn - slot->base_gfn]; }
static inline int host_writable(u64 mapping) { return (mapping & (HVA_WRITABLE | HVA_ZERO)) == HVA_WRITABLE; }

static u64 fault_in(struct vm *vm, u64 hva, int write)
{
    u64 entry = vm->hva_map[hva];
    if (entry & HVA_PRESENT && !(write && entry & HVA_ZERO))
        return entry;
    abort(); /* the host would have to find a frame */
}

static u8 *fault_in_guest_bytes(struct vm *vm, struct slot *slot, u64 gpa, int write)
{
    if (slot->flags & SLOT_INVALID || (write && slot->flags & SLOT_READONLY))
        return NULL;
    u64 entry = fault_in(vm, slot->hva + (gpa >> PAGE_SHIFT) - slot->base_gfn, write);
    if (!(entry & HVA_PRESENT) || (write && !host_writable(entry)))
        return NULL;
    return pfn_memory(vm, entry >> PAGE_SHIFT) + (gpa & (PAGE_SIZE - 1));
}

static inline u8 *guest_bytes(struct vm *vm, int as_id, u64 gpa, int write)
{
    struct slot *slot = find_slot(vm, as_id, gpa >> PAGE_SHIFT);
    if (!slot)
        return NULL;
    u64 entry = host_mapping(vm, slot, gpa >> PAGE_SHIFT), wanted = HVA_PRESENT | HVA_WRITABLE;
    if (!slot->flags && (entry & (wanted | HVA_ZERO)) == wanted)
        return pfn_memory(vm, entry >> PAGE_SHIFT) + (gpa & (PAGE_SIZE - 1));
    return fault_in_guest_bytes(vm, slot, gpa, write);
}

/* --- guest entries */

static inline int entry_size(int format) { return format == FORMAT_PT32 ? 4 : 8; }
static inline int gpte_present(int format, u64 gpte) { return format == FORMAT_EPT ? (gpte & 7) != 0 : gpte & PT_P; }
static inline u64 gpte_gfn(int format, u64 gpte) { return (gpte & (format == FORMAT_PT32 ? 0xFFFFF000ULL : PT_ADDR)) >> PAGE_SHIFT; }
static inline u64 accessed_bit(int format) { return format == FORMAT_EPT ? EPT_A : PT_A; }
static inline u64 dirty_bit(int format) { return format == FORMAT_EPT ? EPT_D : PT_D; }
static inline int have_ad(struct mmu *mmu) { return !(mmu->cpu_role & ROLE_AD_DISABLED); }
static inline u64 read_entry(int format, const u8 *at) { return format == FORMAT_PT32 ? *(u32 *)at : *(u64 *)at; }

static int gpte_access(int format, u64 gpte)
{
    if (format == FORMAT_EPT)
        return (gpte & EPT_W ? WRITE : 0) | (gpte & EPT_X ? EXEC : 0) | (gpte & EPT_R ? USER : 0);
    return (gpte & (PT_W | PT_U)) | (format == FORMAT_PT32 || !(gpte & PT_NX) ? EXEC : 0);
}

static int protect_clean(struct mmu *mmu, int access, u64 gpte)
{
    return !have_ad(mmu) || gpte & dirty_bit(mmu->format) ? access : access & ~WRITE;
}

static int last_gpte(struct mmu *mmu, int level, u64 gpte)
{
    if (level == 1)
        return 1;
    if (!(gpte & PT_PS))
        return 0;
    if (mmu->format == FORMAT_PT32)
        return level == 2 && mmu->cpu_ext & EXT_PSE;
    return level <= 3;
}

static inline int is_reserved(struct rsvd *rsvd, u64 entry, int level)
{
    return (entry & rsvd->mask[entry >> 7 & 1][level - 1]) != 0 || (rsvd->bad_mt_xwr >> (entry & 0x3F) & 1);
}

/* --- the walk of the guest's tables */

static u64 permission_fault(struct vcpu *vcpu, struct mmu *mmu, int access, int pkey, u64 code)
{
    int index = (code & (ERR_W | ERR_U | ERR_FETCH)) >> 1;
    if (vcpu->ac)
        index |= ERR_RSVD >> 1;
    if (mmu->pkru_mask) {
        int bits = (code & (ERR_W | ERR_U | ERR_FETCH)) | (access & USER ? ERR_RSVD : 0);
        if (vcpu->pkru >> 2 * pkey & 3 & (mmu->pkru_mask >> bits & 3))
            return ERR_P | ERR_PK;
    }
    return mmu->permissions[index] >> access & 1 ? ERR_P : 0;
}

static int walk_fault(struct vcpu *vcpu, struct mmu *mmu, struct walker *w, u64 addr, u64 access, u64 code)
{
    code |= access & (ERR_W | ERR_U);
    if (access & ERR_FETCH && (mmu->cpu_role & ROLE_EFER_NX || mmu->cpu_ext & EXT_SMEP))
        code |= ERR_FETCH;
    w->fault = (struct exception){ 1, mmu != vcpu->walk_mmu, code, addr };
    emit(vcpu->vm, vcpu->id, WALKER_ERROR, code, 0, 0, 0);
    return 0;
}

static int update_ad(struct vcpu *vcpu, struct mmu *mmu, struct walker *w, int write)
{
    for (int level = w->max_level; level >= w->level; level--) {
        u64 old = w->ptes[level - 1], pte = old;
        if (!(pte & accessed_bit(mmu->format))) {
            emit(vcpu->vm, vcpu->id, SET_ACCESSED_BIT, w->pte_gpa[level - 1], 0, 0, 0);
            pte |= accessed_bit(mmu->format);
        }
        if (level == w->level && write && !(pte & dirty_bit(mmu->format))) {
            emit(vcpu->vm, vcpu->id, SET_DIRTY_BIT, w->pte_gpa[level - 1], 0, 0, 0);
            pte |= dirty_bit(mmu->format);
        }
        u64 real = w->real_gpa[level - 1];
        u8 *at = pte != old ? guest_bytes(vcpu->vm, vcpu->smm, real, 1) : NULL;
        if (!at)
            continue;
        if (read_entry(mmu->format, at) != old)
            return 0;
        if (entry_size(mmu->format) == 4)
            *(u32 *)at = pte;
        else
            *(u64 *)at = pte;
        mark_dirty(find_slot(vcpu->vm, vcpu->smm, real >> PAGE_SHIFT), real >> PAGE_SHIFT);
        w->ptes[level - 1] = pte;
    }
    return 1;
}

static u64 leaf_gfn(struct mmu *mmu, u64 pte, int level, u64 addr)
{
    u64 mask = mmu->format == FORMAT_PT32 && level == 2 ? 0x3FF : pages_per(level) - 1;
    u64 gfn = (gpte_gfn(mmu->format, pte) & ~mask) + (addr >> PAGE_SHIFT & mask);
    if (mmu->format == FORMAT_PT32 && level > 1)
        gfn += (pte & 0x1E000) << 7;
    return gfn;
}

static int read_table(struct vcpu *vcpu, struct mmu *mmu, struct walker *w, int level, u64 table, u64 addr)
{
    int format = mmu->format, bits = format == FORMAT_PT32 ? 10 : 9;
    u64 offset = (addr >> (PAGE_SHIFT + bits * (level - 1)) & ((1ULL << bits) - 1)) * entry_size(format);
    u64 gfn = gpte_gfn(format, table), gpa = gfn << PAGE_SHIFT;
    w->table_gfn[level - 1] = gfn;
    w->pte_gpa[level - 1] = gpa + offset;
    if (mmu->is_nested)
        abort(); /* the table's address would go through L1's tables */
    w->real_gpa[level - 1] = gpa + offset;
    u8 *at = guest_bytes(vcpu->vm, vcpu->smm, gpa + offset, 0);
    if (!at)
        return 0;
    w->ptes[level - 1] = read_entry(format, at);
    return 1;
}

static u64 get_pdptr(struct vcpu *vcpu, struct mmu *mmu, int index)
{
    if (mmu->is_guest)
        abort(); /* L1's, from memory */
    return mmu->is_nested ? vcpu->walk_mmu->pdptrs[index] : mmu->pdptrs[index];
}

static int walk_once(struct vcpu *vcpu, struct mmu *mmu, struct walker *w, u64 addr, u64 code)
{
    u64 pte = mmu->is_guest ? vcpu->ncr3 : vcpu->cr3, access = ~0ULL, above;
    int level = role_level(mmu->cpu_role), format = mmu->format, write = (code & ERR_W) != 0;
    u64 nx = format == FORMAT_PT64 ? PT_NX : 0;
    if (level <= 3 && addr >> 32)
        return walk_fault(vcpu, mmu, w, addr, code, 0);
    if (level == 3) {
        pte = get_pdptr(vcpu, mmu, addr >> 30 & 3);
        emit(vcpu->vm, vcpu->id, PAGING_ELEMENT, pte, 3, 0, 0);
        if (!(pte & PT_P))
            return walk_fault(vcpu, mmu, w, addr, code, 0);
        level = 2;
    }
    w->max_level = level++;
    do {
        above = access;
        level--;
        if (!read_table(vcpu, mmu, w, level, pte, addr))
            return walk_fault(vcpu, mmu, w, addr, code, 0);
        pte = w->ptes[level - 1];
        emit(vcpu->vm, vcpu->id, PAGING_ELEMENT, pte, level, 0, 0);
        access = above & (pte ^ nx);
        if (!gpte_present(format, pte))
            return walk_fault(vcpu, mmu, w, addr, code, 0);
        if (is_reserved(&mmu->guest_rsvd, pte, level))
            return walk_fault(vcpu, mmu, w, addr, code, ERR_RSVD | ERR_P);
        w->pt_access[level - 1] = gpte_access(format, above ^ nx);
    } while (!last_gpte(mmu, level, pte));
    w->level = level;
    w->access = gpte_access(format, access ^ nx);
    u64 denied = permission_fault(vcpu, mmu, w->access, format == FORMAT_PT64 ? pte >> PKEY_SHIFT & 15 : 0, code);
    if (denied)
        return walk_fault(vcpu, mmu, w, addr, code, denied);
    w->gfn = leaf_gfn(mmu, pte, level, addr);
    if (mmu->is_nested)
        abort();
    if (!write)
        w->access = protect_clean(mmu, w->access, pte);
    if (!have_ad(mmu))
        return 1;
    int all_set = access & accessed_bit(format) && (!write || pte & dirty_bit(format));
    return all_set || update_ad(vcpu, mmu, w, write) ? 1 : -1;
}

static int walk(struct vcpu *vcpu, struct mmu *mmu, struct walker *w, u64 addr, u64 code)
{
    int result;
    emit(vcpu->vm, vcpu->id, PAGETABLE_WALK, addr, code, 0, 0);
    w->fault.pending = w->fault.nested = 0;
    do
        result = walk_once(vcpu, mmu, w, addr, code);
    while (result < 0);
    return result;
}

static int gpte_changed(struct vcpu *vcpu, struct mmu *mmu, struct walker *w, int level)
{
    int size = entry_size(mmu->format);
    u64 gpa = w->pte_gpa[level - 1], base = level > 1 ? gpa : gpa & ~(u64)(PREFETCH * size - 1);
    u8 *at = guest_bytes(vcpu->vm, vcpu->smm, base, 0);
    if (!at)
        return 1;
    if (level > 1)
        return read_entry(mmu->format, at) != w->ptes[level - 1];
    if (size == 8) {
        memcpy(w->group, at, sizeof(w->group));
        return w->group[(gpa - base) >> 3] != w->ptes[0];
    }
    for (int i = 0; i < PREFETCH; i++)
        w->group[i] = read_entry(mmu->format, at + i * size);
    return w->group[(gpa - base) >> 2] != w->ptes[0];
}

/* --- reverse maps */

static struct desc *take_desc(struct vm *vm)
{
    struct desc *desc = vm->free_descs;
    if (!desc)
        abort();
    vm->free_descs = desc->more;
    vm->nfree_descs--;
    desc->more = NULL;
    desc->count = 0;
    return desc;
}

static u64 pte_list_add(struct vm *vm, u64 *sptep, u64 *head)
{
    struct desc *desc;
    u64 count = 0;
    if (!*head) {
        *head = (u64)sptep;
        return 0;
    }
    if (!(*head & 1)) {
        desc = take_desc(vm);
        desc->sptes[0] = (u64 *)*head;
        desc->sptes[1] = sptep;
        desc->count = 2;
        *head = (u64)desc | 1;
        return 1;
    }
    for (desc = (struct desc *)(*head & ~1ULL); desc->count == PTE_LIST_EXT; desc = desc->more) {
        count += PTE_LIST_EXT;
        if (!desc->more)
            desc->more = take_desc(vm);
    }
    count += desc->count;
    desc->sptes[desc->count++] = sptep;
    return count;
}

static inline u64 accessed_mask(struct vm *vm, u64 spte) { return (spte & AD_MASK) != AD_DISABLED ? vm->masks.accessed : 0; }
static inline u64 dirty_mask(struct vm *vm, u64 spte) { return (spte & AD_MASK) != AD_DISABLED ? vm->masks.dirty : 0; }

static int access_tracked(struct vm *vm, u64 spte) { return (spte & AD_MASK) == AD_DISABLED && !(spte & vm->masks.acc_track); }

static int spte_accessed(struct vm *vm, u64 spte)
{
    u64 mask = accessed_mask(vm, spte);
    return mask ? (spte & mask) != 0 : !access_tracked(vm, spte);
}

static int spte_dirty(struct vm *vm, u64 spte)
{
    u64 mask = dirty_mask(vm, spte);
    return (spte & (mask ? mask : PT_W)) != 0;
}

static int spte_update(struct vm *vm, u64 *sptep, u64 value)
{
    u64 old = *sptep;
    *sptep = value;
    if (!(old & MMU_PRESENT))
        return 0;
    if ((old ^ value) & PT_ADDR)
        abort();
    return (old & vm->masks.mmu_writable && !(value & PT_W)) || (spte_accessed(vm, old) && !spte_accessed(vm, value)) ||
           (spte_dirty(vm, old) && !spte_dirty(vm, value));
}

static int protect_spte(struct vm *vm, u64 *sptep)
{
    u64 spte = *sptep;
    if (!(spte & (PT_W | vm->masks.mmu_writable)))
        return 0;
    return spte_update(vm, sptep, spte & ~(u64)(PT_W | vm->masks.mmu_writable));
}

static int protect_gfn(struct vm *vm, struct slot *slot, u64 gfn)
{
    int flush = 0;
    for (int level = 1; level <= 3; level++) {
        u64 head = *gfn_rmap(slot, gfn, level);
        if (!(head & 1)) {
            if (head)
                flush |= protect_spte(vm, (u64 *)head);
            continue;
        }
        for (struct desc *desc = (struct desc *)(head & ~1ULL); desc; desc = desc->more)
            for (u64 i = 0; i < desc->count; i++)
                flush |= protect_spte(vm, desc->sptes[i]);
    }
    return flush;
}

/* --- shadow pages */

static inline u64 bucket(u64 gfn) { return (gfn * 0x61C8864680B583EBULL) >> (64 - HASH_BITS); }
static inline int is_obsolete(struct vm *vm, struct page *sp) { return sp->role & ROLE_INVALID || sp->gen != vm->gen; }
static inline int has_gptes(u32 role) { return !(role & (ROLE_DIRECT | ROLE_PASSTHROUGH)); }

struct page *twin_take_page(struct vm *vm)
{
    struct list *entry = vm->free_pages.next;
    if (entry == &vm->free_pages)
        abort();
    list_del(entry);
    vm->nfree_pages--;
    struct page *sp = (struct page *)entry;
    memset(sp, 0, sizeof(*sp));
    sp->live = 1;
    sp->owner = -1;
    u64 frame = vm->table_base + (sp - vm->pages);
    sp->spt = (u64 *)(vm->frames + (frame << PAGE_SHIFT));
    memset(sp->spt, 0, PAGE_SIZE);
    vm->frame_private[frame] = sp;
    sp->gen = vm->gen;
    return sp;
}

static void account_shadowed(struct vm *vm, struct page *sp)
{
    struct slot *slot = find_slot(vm, sp->role >> 24, sp->gfn);
    vm->indirect++;
    if (!slot)
        return;
    if (role_level(sp->role) > 1)
        slot->track[sp->gfn - slot->base_gfn]++;
    for (int level = 2; level <= 3; level++)
        slot->disallow_lpage[level - 2][(sp->gfn >> 9 * (level - 1)) - (slot->base_gfn >> 9 * (level - 1))]++;
    if (protect_gfn(vm, slot, sp->gfn))
        flush_remote(vm);
}

struct page *twin_make_page(struct vm *vm, u64 gfn, u32 role)
{
    struct page *sp = twin_take_page(vm), **head = &vm->hash[bucket(gfn)];
    if (!(role & ROLE_DIRECT))
        sp->translation = vm->translations + (sp - vm->pages) * ENTRIES;
    list_add(&sp->link, &vm->active);
    vm->used++;
    sp->gfn = gfn;
    sp->role = role;
    sp->hash_next = *head;
    sp->hash_pprev = head;
    if (*head)
        (*head)->hash_pprev = &sp->hash_next;
    *head = sp;
    if (has_gptes(role))
        account_shadowed(vm, sp);
    return sp;
}

static struct page *get_page(struct vm *vm, u64 gfn, u32 role)
{
    struct page *sp;
    u64 collisions = 0;
    int created = 0;
    for (sp = vm->hash[bucket(gfn)]; sp; sp = sp->hash_next) {
        if (is_obsolete(vm, sp))
            continue;
        if (sp->gfn != gfn) {
            collisions++;
            continue;
        }
        if (sp->unsync)
            abort(); /* would be synced or zapped */
        if (sp->role == role) {
            if (!(role & ROLE_DIRECT))
                sp->flooding = 0;
            break;
        }
    }
    if (!sp)
        vm->stat.cache_miss++;
    if (collisions > vm->stat.max_collisions)
        vm->stat.max_collisions = collisions;
    if (!sp) {
        created = 1;
        sp = twin_make_page(vm, gfn, role);
    }
    emit(vm, 0, GET_PAGE, sp->gfn, sp->role, sp->gen | sp->unsync << 8 | created << 9 | sp->special << 10, sp->root_count);
    return sp;
}

static u32 child_role(u32 parent, int index, int direct, int access)
{
    int level = role_level(parent) - 1;
    u32 role = parent & ~(u32)(ROLE_LEVEL | ROLE_ACCESS | ROLE_DIRECT | ROLE_PASSTHROUGH | ROLE_QUADRANT | ROLE_INVALID);
    role |= level | access << 8;
    if (direct)
        role |= ROLE_DIRECT;
    if (role & ROLE_4_BYTE && level < 3)
        role |= (index & ((1 << level) - 1)) << 5;
    return role;
}

static struct page *get_child(struct vm *vm, u64 *sptep, u64 gfn, int direct, int access)
{
    struct page *parent = sptep_page(vm, sptep);
    if (parent->role & ROLE_INVALID)
        abort();
    u32 role = child_role(parent->role, spte_index(sptep), direct, access);
    if (*sptep & MMU_PRESENT && !(*sptep & PT_PS)) {
        struct page *child = to_page(vm, *sptep);
        if (child->gfn == gfn && child->role == role)
            return NULL;
        abort(); /* would be unlinked */
    }
    if (parent->special && role_level(role) >= 3)
        abort(); /* a special page below a special page */
    return get_page(vm, gfn, role);
}

static void link_page(struct vm *vm, u64 *sptep, struct page *sp, int root_level)
{
    struct masks *m = &vm->masks;
    if (*sptep & MMU_PRESENT)
        abort();
    if (root_level == 3 && role_level(sp->role) == 2)
        *sptep = MMU_PRESENT | host_pa(vm, sp->spt) | PT_P | m->me_value;
    else
        *sptep = MMU_PRESENT | host_pa(vm, sp->spt) | m->present | PT_W | m->user | m->x | m->me_value |
                 (sp->role & ROLE_AD_DISABLED ? AD_DISABLED : m->accessed);
    pte_list_add(vm, sptep, &sp->parents);
    if (sp->unsync_children || sp->unsync)
        abort(); /* its parents would be marked */
}

static void clear_flooding(struct vm *vm, u64 *sptep)
{
    struct page *sp = sptep_page(vm, sptep);
    if (sp)
        sp->flooding = 0;
}

/* --- the leaf */

static int must_protect(struct vm *vm, u64 gfn)
{
    if (write_tracked(vm, gfn))
        return 1;
    for (struct page *sp = vm->hash[bucket(gfn)]; sp; sp = sp->hash_next)
        if (sp->gfn == gfn && !is_obsolete(vm, sp) && has_gptes(sp->role))
            abort(); /* would go unsync */
    return 0;
}

static int make_spte(struct vm *vm, struct mmu *mmu, struct page *sp, struct slot *slot, int access, u64 gfn, u64 pfn, u64 old,
                     int prefetch, int writable, u64 *made)
{
    struct masks *m = &vm->masks;
    int level = role_level(sp->role), protect = 0;
    u64 spte = MMU_PRESENT | (sp->role & ROLE_AD_DISABLED ? AD_DISABLED : 0) | m->present;
    if (!prefetch)
        spte |= accessed_mask(vm, spte);
    if (level > 1) {
        spte |= PT_PS;
        if (vm->nx_huge_pages)
            access &= ~EXEC;
    }
    spte |= access & EXEC ? m->x : m->nx;
    if (access & USER)
        spte |= m->user;
    if (m->memtype)
        spte |= 6 << 3 | 1 << 6;
    if (writable)
        spte |= m->host_writable;
    else
        access &= ~WRITE;
    spte |= m->me_value | pfn << PAGE_SHIFT;
    if (access & WRITE) {
        int was_writable = (level == 1 || old & PT_PS) && old & PT_W;
        spte |= PT_W | m->mmu_writable;
        if (!(was_writable && old & MMU_PRESENT) && must_protect(vm, gfn)) {
            protect = 1;
            spte &= ~(m->mmu_writable | PT_W);
        } else if (!was_writable)
            spte |= dirty_mask(vm, spte);
    }
    if (prefetch && (spte & AD_MASK) != AD_DISABLED && m->accessed)
        spte &= ~m->accessed;
    else if (prefetch && m->acc_track)
        abort(); /* an entry without A bits */
    if (is_reserved(&mmu->shadow_zero, spte, level))
        abort();
    if (spte & PT_W && slot->flags & SLOT_LOG_DIRTY)
        mark_dirty(slot, gfn);
    *made = spte;
    return protect;
}

static void rmap_add(struct vm *vm, struct slot *slot, u64 *sptep, u64 gfn, int access)
{
    struct page *sp = sptep_page(vm, sptep);
    int level = role_level(sp->role);
    if (sp->translation)
        sp->translation[spte_index(sptep)] = gfn << PAGE_SHIFT | access;
    vm->stat.pages[level - 1]++;
    u64 count = pte_list_add(vm, sptep, gfn_rmap(slot, gfn, level));
    if (count > vm->stat.max_rmap)
        vm->stat.max_rmap = count;
    if (count > RMAP_RECYCLE)
        abort();
}

static int set_spte(struct vcpu *vcpu, struct slot *slot, u64 *sptep, int access, u64 gfn, u64 pfn, struct fault *fault)
{
    struct vm *vm = vcpu->vm;
    struct page *sp = sptep_page(vm, sptep);
    int level = role_level(sp->role), prefetch = !fault, was_rmapped = 0, result = PF_FIXED, flush = 0;
    u64 made;
    if (pfn == NO_SLOT)
        abort(); /* MMIO */
    if (*sptep & MMU_PRESENT) {
        if ((level > 1 && !(*sptep & PT_PS)) || (*sptep & PT_ADDR) >> PAGE_SHIFT != pfn)
            abort(); /* would be dropped */
        was_rmapped = 1;
    }
    int protect = make_spte(vm, vcpu->mmu, sp, slot, access, gfn, pfn, *sptep, prefetch, prefetch || fault->writable, &made);
    if (*sptep == made)
        result = PF_SPURIOUS;
    else {
        flush = spte_update(vm, sptep, made);
        emit(vm, vcpu->id, SET_SPTE, gfn, made, host_pa(vm, sptep), level);
    }
    if (protect && !prefetch && fault->write)
        result = PF_EMULATE;
    if (flush)
        flush_remote(vm);
    if (!was_rmapped)
        rmap_add(vm, slot, sptep, gfn, access);
    else if (sp->translation)
        sp->translation[spte_index(sptep)] = (sp->translation[spte_index(sptep)] >> PAGE_SHIFT) << PAGE_SHIFT | access;
    return result;
}

static int prefetch_gpte(struct vcpu *vcpu, u64 *sptep, u64 gpte)
{
    struct vm *vm = vcpu->vm;
    struct mmu *mmu = vcpu->mmu;
    int used = gpte_present(mmu->format, gpte) && (!have_ad(mmu) || gpte & accessed_bit(mmu->format));
    if (!used || is_reserved(&mmu->guest_rsvd, gpte, 1)) {
        *sptep = 0;
        return 0;
    }
    u64 gfn = gpte_gfn(mmu->format, gpte);
    int access = (sptep_page(vm, sptep)->role & ROLE_ACCESS) >> 8 & gpte_access(mmu->format, gpte);
    access = protect_clean(mmu, access, gpte);
    struct slot *slot = find_slot(vm, vcpu->smm, gfn);
    if (!slot || slot->flags & SLOT_INVALID || (access & WRITE && slot->flags & SLOT_LOG_DIRTY))
        return 0;
    u64 entry = host_mapping(vm, slot, gfn);
    if (slot->flags & SLOT_READONLY || !(entry & HVA_PRESENT) || !host_writable(entry))
        return 0;
    set_spte(vcpu, slot, sptep, access, gfn, entry >> PAGE_SHIFT, NULL);
    return 1;
}

static void prefetch(struct vcpu *vcpu, struct walker *w, u64 *sptep)
{
    struct page *sp = sptep_page(vcpu->vm, sptep);
    if (role_level(sp->role) > 1 || vcpu->vm->invalidate_in_progress)
        return;
    if (sp->role & ROLE_DIRECT)
        abort();
    u64 *first = &sp->spt[spte_index(sptep) & ~(PREFETCH - 1)];
    for (int i = 0; i < PREFETCH; i++)
        if (first + i != sptep && !(first[i] & MMU_PRESENT) && !prefetch_gpte(vcpu, first + i, w->group[i]))
            return;
}

/* --- the walk of the shadow tables */

static void walk_init(struct shadow_walk *it, struct vcpu *vcpu, u64 root, u64 addr)
{
    struct page *sp = to_page(vcpu->vm, root);
    if (!sp)
        abort(); /* a legacy root */
    *it = (struct shadow_walk){ .vm = vcpu->vm, .addr = addr, .table = sp->spt, .level = role_level(sp->role), .special = sp->special };
}

static inline int walk_okay(struct shadow_walk *it)
{
    if (it->level < 1)
        return 0;
    u64 index = it->addr >> (PAGE_SHIFT + 9 * (it->level - 1)) & (ENTRIES - 1);
    if (it->level == 3 && it->special)
        index &= 3;
    it->sptep = it->table + index;
    return 1;
}

static inline void walk_next(struct shadow_walk *it)
{
    u64 spte = *it->sptep;
    if (!(spte & MMU_PRESENT) || it->level == 1 || spte & PT_PS) {
        it->level = 0;
        return;
    }
    it->table = to_page(it->vm, spte)->spt;
    it->level--;
}

/* --- the fault */

static void interleave(struct vm *vm, int point)
{
    if (vm->interleave.point == point)
        abort(); /* a store of another CPU */
}

static int build_upper(struct vcpu *vcpu, struct walker *w, struct shadow_walk *it)
{
    for (; walk_okay(it) && it->level > w->level; walk_next(it)) {
        clear_flooding(vcpu->vm, it->sptep);
        interleave(vcpu->vm, 2);
        int above = it->level - 1 > w->max_level && role_level(vcpu->mmu->cpu_role) <= 3;
        u64 gfn = above ? 0 : w->table_gfn[it->level - 2];
        struct page *sp = get_child(vcpu->vm, it->sptep, gfn, 0, above ? ALL : w->pt_access[it->level - 2]);
        if (sp && sp->unsync_children)
            abort(); /* would be synced */
        if (it->level - 1 <= w->max_level && gpte_changed(vcpu, vcpu->mmu, w, it->level - 1))
            return 0;
        if (sp)
            link_page(vcpu->vm, it->sptep, sp, role_level(vcpu->mmu->root_role));
    }
    return 1;
}

static void request_spte(struct vcpu *vcpu, struct fault *f)
{
    int top = role_level(vcpu->mmu->root_role);
    if (f->max_level >= top)
        f->max_level = top - 1;
    f->huge_disallowed = f->fetch && vcpu->vm->nx_huge_pages;
    if (f->max_level != 1 && f->slot && f->pfn != NO_SLOT && !(f->slot->flags & SLOT_LOG_DIRTY))
        abort(); /* a large page would be looked for */
    u64 pfn = f->pfn | (f->gfn & (pages_per(f->goal_level) - 1));
    emit(vcpu->vm, vcpu->id, SPTE_REQUESTED, f->gfn, pfn, f->goal_level, 0);
}

static void build_direct(struct vcpu *vcpu, struct fault *f, struct shadow_walk *it)
{
    if (!walk_okay(it))
        abort();
    clear_flooding(vcpu->vm, it->sptep);
    if (vcpu->vm->nx_huge_pages && it->level > 1)
        abort();
    if (it->level != f->goal_level)
        abort(); /* direct pages below a large guest page */
}

static int fetch(struct vcpu *vcpu, struct fault *f, struct walker *w)
{
    struct shadow_walk it;
    if (gpte_changed(vcpu, vcpu->mmu, w, w->max_level))
        return PF_RETRY;
    walk_init(&it, vcpu, vcpu->mmu->root, f->addr);
    if (!build_upper(vcpu, w, &it))
        return PF_RETRY;
    request_spte(vcpu, f);
    build_direct(vcpu, f, &it);
    u64 gfn = f->gfn & ~(pages_per(it.level) - 1);
    int result = set_spte(vcpu, f->slot, it.sptep, w->access, gfn, f->pfn, f);
    if (result != PF_SPURIOUS)
        prefetch(vcpu, w, it.sptep);
    return result;
}

static int faultin_pfn(struct vcpu *vcpu, struct fault *f)
{
    f->seq = vcpu->vm->invalidate_seq;
    if (!f->slot)
        abort(); /* MMIO */
    if (f->slot->flags & SLOT_INVALID)
        return PF_RETRY;
    f->hva = f->slot->hva + f->gfn - f->slot->base_gfn;
    if (f->slot->flags & SLOT_READONLY && f->write)
        return PF_EMULATE;
    u64 entry = fault_in(vcpu->vm, f->hva, f->write);
    if (!(entry & HVA_PRESENT) || (f->write && !host_writable(entry)))
        return -14;
    f->pfn = entry >> PAGE_SHIFT;
    f->writable = host_writable(entry) && !(f->slot->flags & SLOT_READONLY);
    return PF_CONTINUE;
}

static int is_stale(struct vcpu *vcpu, struct fault *f)
{
    struct vm *vm = vcpu->vm;
    if (vcpu->mmu->root == NO_PAGE)
        return 1;
    struct page *sp = to_page(vm, vcpu->mmu->root);
    if (!sp ? vcpu->requests & REQ_FREE_OBSOLETE_ROOTS : is_obsolete(vm, sp))
        return 1;
    if (!f->slot)
        return 0;
    if (vm->invalidate_in_progress && vm->invalidate_start <= f->hva && f->hva < vm->invalidate_end)
        return 1;
    return vm->invalidate_seq != f->seq;
}

static int is_self_change(struct vcpu *vcpu, struct fault *f, struct walker *w)
{
    int found = 0;
    if (!(w->access & WRITE) && (vcpu->mmu->cpu_role & ROLE_CR0_WP || f->user))
        return 0;
    for (int level = w->level; level <= w->max_level; level++) {
        u64 other = w->gfn ^ w->table_gfn[level - 1];
        if (!(other & ~(pages_per(w->level) - 1)))
            found = 1;
        if (!other)
            vcpu->write_fault_to_table = 1;
    }
    return found;
}

static int shadow_page_fault(struct vcpu *vcpu, struct fault *f)
{
    struct vm *vm = vcpu->vm;
    struct walker w;
    if (!walk(vcpu, vcpu->mmu, &w, f->addr, f->code & (ERR_P | ERR_W | ERR_U | ERR_FETCH))) {
        if (w.fault.code & ERR_P && !(w.fault.code & ERR_RSVD))
            abort(); /* the address would be invalidated */
        vcpu->stat.guest++;
        vcpu->exception = w.fault;
        emit(vm, vcpu->id, INJECT, w.fault.address, w.fault.code, w.fault.nested, 0);
        return PF_INJECT;
    }
    f->gfn = w.gfn;
    f->slot = find_slot(vm, vcpu->smm, w.gfn);
    if (!f->rsvd && f->present && f->write && write_tracked(vm, f->gfn))
        abort(); /* would be emulated */
    if (vm->nfree_pages < CACHE_PAGES || vm->nfree_descs < CACHE_DESCS)
        abort(); /* would zap the oldest */
    vcpu->write_fault_to_table = 0;
    f->max_level = is_self_change(vcpu, f, &w) ? 1 : w.level;
    int result = faultin_pfn(vcpu, f);
    if (result != PF_CONTINUE)
        return result;
    if (f->write && !(w.access & WRITE) && !(vcpu->mmu->cpu_role & ROLE_CR0_WP) && !f->user)
        abort(); /* CR0.WP=0 */
    interleave(vm, 1);
    if (vm->max < vm->used + MIN_FREE_PAGES)
        abort(); /* would recycle */
    if (is_stale(vcpu, f))
        return PF_RETRY;
    return fetch(vcpu, f, &w);
}

static int page_fault(struct vcpu *vcpu, u64 addr, u64 code)
{
    struct vm *vm = vcpu->vm;
    struct fault f;
    emit(vm, vcpu->id, MMU_PAGE_FAULT, addr, code, 0, 0);
    if (vcpu->mmu->root == NO_PAGE)
        return PF_RETRY;
    if (code & ERR_RSVD || vcpu->mmu->root_role & ROLE_DIRECT)
        abort();
    memset(&f, 0, sizeof(f));
    f.addr = addr;
    f.code = code;
    f.fetch = (code & ERR_FETCH) != 0;
    f.write = (code & ERR_W) != 0;
    f.user = (code & ERR_U) != 0;
    f.present = (code & ERR_P) != 0;
    f.max_level = 3;
    f.req_level = f.goal_level = 1;
    vcpu->stat.taken++;
    int result = shadow_page_fault(vcpu, &f);
    if (result == PF_FIXED)
        vcpu->stat.fixed++;
    else if (result == PF_EMULATE)
        vcpu->stat.emulate++;
    else if (result == PF_SPURIOUS)
        vcpu->stat.spurious++;
    emit(vm, vcpu->id, MMU_PAGE_FAULT_RET, result < 0 ? result : 1, 0, 0, 0);
    return result;
}

/* --- what the benchmark calls; twin_vm.c makes the VM */

/* A function of its own, which callgrind takes for one: what libffi calls it books as libffi's. */
static __attribute__((noinline)) u64 touch_range(struct vm *vm, u64 gva, u64 count, u64 step, u64 code)
{
    u64 fixed = 0;
    for (u64 i = 0; i < count; i++)
        fixed += page_fault(&vm->vcpus[0], gva + i * step, code) == PF_FIXED;
    return fixed;
}

u64 twin_touch(struct vm *vm, u64 gva, u64 count, u64 step, u64 code)
{
    return touch_range(vm, gva, count, step, code);
}
