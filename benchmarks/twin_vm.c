// SPDX-License-Identifier: GPL-2.0-only
/*
 * A VM for the twin: one slot of guest memory at gfn 0, one vCPU with a PAE guest on a special root or a 4-level guest.
 *
 * Frames lie as in the engine, so that both sides' entries are equal bit for bit: 3 low ones (the second is the
 * pae_root), guest memory, 64 spare ones, shadow tables.
 */

#include "twin.h"

#include <string.h>
#include <sys/mman.h>

enum { LOW_FRAMES = 3, SPARE_FRAMES = 64, GUEST_WIDTH = 40, HOST_WIDTH = 46 };

static void *room(u64 bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static u64 bits(int low, int high) { return ~0ULL >> (63 - (high - low)) << low; }

/* What PAE and 4-level entries reserve, NX enabled (APM vol. 2 sections 5.2 and 5.3). */
static void set_reserved(struct rsvd *rsvd, int levels, int width)
{
    for (int leaf = 0; leaf < 2; leaf++) {
        u64 *mask = rsvd->mask[leaf];
        for (int i = 0; i < LEVELS; i++)
            mask[i] = bits(width, levels == 3 ? 62 : 51);
        if (levels == 3)
            mask[2] |= bits(63, 63) | bits(5, 8) | bits(1, 2);
        else
            mask[3] = mask[4] = bits(width, 51) | bits(7, 8);
    }
    rsvd->mask[1][1] |= bits(13, 20);
    if (levels > 3)
        rsvd->mask[1][2] |= bits(13, 29);
}

/* CR0.WP=1, EFER.NXE=1, no SMEP, SMAP or protection keys: bit `access` of permissions[code >> 1] is "faults". */
static void set_permissions(struct mmu *mmu)
{
    for (int code = 0; code < 32; code += 2)
        for (int access = 0; access < 8; access++) {
            int bad = (code & ERR_W && !(access & WRITE)) || (code & ERR_U && !(access & USER)) || (code & ERR_FETCH && !(access & EXEC));
            mmu->permissions[code >> 1] |= bad << access;
        }
}

static void make_slot(struct vm *vm, u64 npages)
{
    struct slot *slot = &vm->slots[0][0];
    slot->npages = npages;
    for (int level = 0; level < 3; level++)
        slot->rmap[level] = room(((npages >> 9 * level) + 1) * sizeof(u64));
    for (int level = 0; level < 2; level++)
        slot->disallow_lpage[level] = room(((npages >> 9 * (level + 1)) + 1) * sizeof(int));
    slot->track = room(npages * sizeof(u16));
    vm->nslots[0] = 1;
    vm->hva_map = room(npages * sizeof(u64));
    for (u64 i = 0; i < npages; i++)
        vm->hva_map[i] = frame_pfn(vm, LOW_FRAMES + i) << PAGE_SHIFT | 1 << 2 | HVA_WRITABLE | HVA_PRESENT;
}

static void make_vcpu(struct vm *vm, int levels)
{
    struct vcpu *vcpu = vm->vcpus = room(sizeof(*vcpu));
    struct mmu *mmu = &vcpu->root_mmu;
    vm->nvcpus = 1;
    vcpu->vm = vm;
    vcpu->mmu = vcpu->walk_mmu = mmu;
    mmu->root = NO_PAGE;
    mmu->root_role = mmu->cpu_role = levels | ALL << 8 | ROLE_EFER_NX | ROLE_CR0_WP;
    mmu->format = FORMAT_PT64;
    mmu->pae_root = (u64 *)(vm->frames + PAGE_SIZE);
    set_reserved(&mmu->guest_rsvd, levels, GUEST_WIDTH);
    set_reserved(&mmu->shadow_zero, levels, HOST_WIDTH);
    set_permissions(mmu);
}

/* A VM of `pages` guest pages, `npages` shadow pages of which `limit` may be used, and `ndesc` rmap descriptors. */
struct vm *twin_create(u64 pages, u64 npages, u64 ndesc, u64 limit, int levels)
{
    struct vm *vm = room(sizeof(*vm));
    u64 frames = LOW_FRAMES + pages + SPARE_FRAMES + npages;
    vm->low_frames = LOW_FRAMES;
    vm->user_frames = pages + SPARE_FRAMES;
    vm->table_base = LOW_FRAMES + vm->user_frames;
    vm->npages = npages;
    vm->ndesc = ndesc;
    vm->max = limit;
    vm->max_huge_level = 3;
    vm->masks = (struct masks){ .present = PT_P, .user = PT_U, .nx = PT_NX, .accessed = PT_A, .dirty = PT_D, .host_writable = 0x200,
                                .mmu_writable = 0x400 };
    vm->frames = room(frames << PAGE_SHIFT);
    vm->frame_private = room(frames * sizeof(struct page *));
    vm->pages = room(npages * sizeof(struct page));
    vm->translations = room(npages * PAGE_SIZE);
    vm->descs = room(ndesc * sizeof(struct desc));
    list_init(&vm->active);
    list_init(&vm->free_pages);
    for (u64 i = npages; i-- > 0;)
        list_add(&vm->pages[i].link, &vm->free_pages);
    vm->nfree_pages = npages;
    for (u64 i = 0; i < ndesc; i++) {
        vm->descs[i].more = vm->free_descs;
        vm->free_descs = &vm->descs[i];
    }
    vm->nfree_descs = ndesc;
    make_slot(vm, pages);
    make_vcpu(vm, levels);
    return vm;
}

u8 *twin_memory(struct vm *vm) { return vm->frames + (vm->low_frames << PAGE_SHIFT); }

/* Load a root for `cr3`: a special page on the pae_root for PAE, an ordinary page for 4 levels. */
void twin_load(struct vm *vm, u64 cr3)
{
    struct vcpu *vcpu = vm->vcpus;
    struct mmu *mmu = vcpu->mmu;
    struct page *sp;
    vcpu->cr3 = cr3;
    if (role_level(mmu->root_role) == 3) {
        memcpy(mmu->pdptrs, twin_memory(vm) + cr3, sizeof(mmu->pdptrs));
        sp = twin_take_page(vm);
        vm->frame_private[frame_index(vm, sp->spt)] = NULL;
        sp->spt = mmu->pae_root;
        vm->frame_private[frame_index(vm, sp->spt)] = sp;
        sp->role = mmu->root_role;
        sp->special = 1;
    } else {
        sp = twin_make_page(vm, (cr3 & PT_ADDR) >> PAGE_SHIFT, mmu->root_role);
        vm->stat.cache_miss++;
    }
    sp->root_count++;
    mmu->root = host_pa(vm, sp->spt);
}

u64 *twin_table(struct vm *vm, u64 hpa) { return (u64 *)pfn_memory(vm, hpa >> PAGE_SHIFT); }
u64 twin_root(struct vm *vm) { return vm->vcpus->mmu->root; }

/* In the order of COUNTERS in twin.py. */
void twin_counters(struct vm *vm, u64 *out)
{
    struct vcpu *vcpu = vm->vcpus;
    u64 values[] = { vcpu->stat.taken, vcpu->stat.fixed, vcpu->stat.spurious, vcpu->stat.guest, vm->stat.pages[0], vm->stat.cache_miss,
                     vm->stat.max_rmap, vm->stat.max_collisions, vm->stat.flush_requests, vm->used, vm->indirect };
    memcpy(out, values, sizeof(values));
}

void twin_destroy(struct vm *vm)
{
    struct slot *slot = &vm->slots[0][0];
    munmap(vm->frames, (vm->table_base + vm->npages) << PAGE_SHIFT);
    munmap(vm->frame_private, (vm->table_base + vm->npages) * sizeof(struct page *));
    munmap(vm->pages, vm->npages * sizeof(struct page));
    munmap(vm->translations, vm->npages * PAGE_SIZE);
    munmap(vm->descs, vm->ndesc * sizeof(struct desc));
    munmap(vm->hva_map, slot->npages * sizeof(u64));
    munmap(slot->track, slot->npages * sizeof(u16));
    for (int level = 0; level < 3; level++)
        munmap(slot->rmap[level], ((slot->npages >> 9 * level) + 1) * sizeof(u64));
    for (int level = 0; level < 2; level++)
        munmap(slot->disallow_lpage[level], ((slot->npages >> 9 * (level + 1)) + 1) * sizeof(int));
    munmap(vm->vcpus, sizeof(struct vcpu));
    munmap(vm, sizeof(*vm));
}
