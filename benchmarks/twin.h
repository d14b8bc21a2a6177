/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a VM of the C twin is: the structs of src/shadowmmu/engine/arena/state.pxd, fields that no fault reads left out.
 */

#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

enum { PAGE_SHIFT = 12, PAGE_SIZE = 4096, ENTRIES = 512, HASH_BITS = 12, PTE_LIST_EXT = 14, PREFETCH = 8, LEVELS = 5 };
enum { MAX_SLOTS = 32, ADDRESS_SPACES = 2, RMAP_RECYCLE = 1000, MIN_FREE_PAGES = 5, CACHE_PAGES = 5, CACHE_DESCS = 40 };
enum { SLOT_LOG_DIRTY = 1, SLOT_READONLY = 2, SLOT_INVALID = 0x10000 };
enum { HVA_PRESENT = 1, HVA_WRITABLE = 2, HVA_ZERO = 0x10 };
enum { REQ_FREE_OBSOLETE_ROOTS = 1, REQ_TLB_FLUSH = 8 };
enum { FORMAT_NONE, FORMAT_PT32, FORMAT_PT64, FORMAT_EPT };
enum { PF_CONTINUE, PF_RETRY, PF_EMULATE, PF_INVALID, PF_FIXED, PF_SPURIOUS, PF_INJECT };
enum { ERR_P = 1, ERR_W = 2, ERR_U = 4, ERR_RSVD = 8, ERR_FETCH = 0x10, ERR_PK = 0x20 };
enum { EXEC = 1, WRITE = 2, USER = 4, ALL = 7 };
enum { EPT_R = 1, EPT_W = 2, EPT_X = 4, EPT_A = 0x100, EPT_D = 0x200 };
enum { PT_P = 1, PT_W = 2, PT_U = 4, PT_A = 0x20, PT_D = 0x40, PT_PS = 0x80, MMU_PRESENT = 0x800 };
enum { EXT_PSE = 4, EXT_SMEP = 0x20 };
enum {
    ROLE_LEVEL = 0xF, ROLE_4_BYTE = 0x10, ROLE_QUADRANT = 0x60, ROLE_DIRECT = 0x80, ROLE_ACCESS = 0x700, ROLE_INVALID = 0x800,
    ROLE_EFER_NX = 0x1000, ROLE_CR0_WP = 0x2000, ROLE_AD_DISABLED = 0x10000, ROLE_PASSTHROUGH = 0x40000,
};
enum { /* events, numbered as in events.pxd */
    PAGETABLE_WALK = 1, PAGING_ELEMENT, SET_ACCESSED_BIT, SET_DIRTY_BIT, WALKER_ERROR, GET_PAGE, SET_SPTE = 15, SPTE_REQUESTED,
    MMU_PAGE_FAULT = 43, MMU_PAGE_FAULT_RET, INJECT = 50,
};
#define PT_NX (1ULL << 63)
#define PT_ADDR 0x000FFFFFFFFFF000ULL
#define PKEY_SHIFT 59
#define AD_MASK (3ULL << 52)
#define AD_DISABLED (1ULL << 52)
#define HIGH_ZONE 0x100000000ULL
#define NO_PAGE (~0ULL)
#define NO_SLOT (1ULL << 63)

struct list { struct list *next, *prev; };

struct desc { struct desc *more; u64 count; u64 *sptes[PTE_LIST_EXT]; };

struct page {
    struct list link, nx_link;
    struct page *hash_next, **hash_pprev;
    u64 *spt, *translation;
    u64 gfn, parents;
    u32 role;
    int root_count;
    u32 unsync_children;
    int flooding, owner;
    u8 gen, unsync, special, live, nx_disallowed;
    u64 unsync_bitmap[8];
};

struct slot {
    u64 base_gfn, npages, hva;
    u32 flags;
    u64 *rmap[3];
    int *disallow_lpage[2];
    u16 *track;
    u64 *dirty_bitmap;
};

struct rsvd { u64 mask[2][LEVELS]; u64 bad_mt_xwr; };

struct mmu {
    u64 root;
    u32 root_role, cpu_role, cpu_ext;
    int format, is_guest, is_nested;
    u64 *pae_root, pdptrs[4];
    u8 permissions[16];
    u32 pkru_mask;
    struct rsvd guest_rsvd, shadow_zero;
};

struct exception { u8 pending, nested; u64 code, address; };

struct vcpu {
    struct vm *vm;
    int id, ac, smm;
    u64 cr3, ncr3, pkru;
    u32 requests;
    struct mmu root_mmu, *mmu, *walk_mmu;
    struct exception exception;
    int write_fault_to_table;
    struct { u64 taken, fixed, emulate, spurious, guest; } stat;
};

struct masks { u64 present, user, nx, x, accessed, dirty, host_writable, mmu_writable, acc_track, memtype, me_value; };

struct event { u16 kind, vcpu; u64 a[6]; };

struct vm {
    int nvcpus, tdp, nx_huge_pages, max_huge_level;
    struct masks masks;
    u64 low_frames, user_frames, table_base, npages, ndesc;
    u8 *frames;
    struct page **frame_private, *pages, *hash[1 << HASH_BITS];
    u64 *translations, *hva_map;
    struct desc *descs, *free_descs;
    struct vcpu *vcpus;
    struct list active, free_pages;
    u64 nfree_pages, nfree_descs, used, max, indirect;
    struct slot slots[ADDRESS_SPACES][MAX_SLOTS], *last_slot[ADDRESS_SPACES];
    int nslots[ADDRESS_SPACES];
    u64 invalidate_seq, invalidate_start, invalidate_end;
    int invalidate_in_progress;
    u8 gen;
    struct { u64 pages[3], cache_miss, max_rmap, max_collisions, flush, flush_requests, special_allocated; } stat;
    struct { int point; } interleave;
    struct event *events;
    u64 nevents, max_events, lost_events;
};

struct walker { /* arrays by level - 1 */
    int level, max_level;
    u64 table_gfn[LEVELS], pte_gpa[LEVELS], ptes[LEVELS], real_gpa[LEVELS];
    int pt_access[LEVELS], access;
    u64 gfn, group[PREFETCH];
    struct exception fault;
};

struct fault {
    u64 addr, code;
    int fetch, write, user, present, rsvd, is_tdp, writable, huge_disallowed, max_level, req_level, goal_level;
    u64 gfn;
    struct slot *slot;
    u64 pfn, hva, seq;
};

struct shadow_walk {
    struct vm *vm;
    u64 addr, *table, *sptep;
    int level, special;
};

/* --- addresses and lists */

static inline u64 frame_index(struct vm *vm, const void *at) { return (u64)((u8 *)at - vm->frames) >> PAGE_SHIFT; }

static inline u64 frame_pfn(struct vm *vm, u64 index)
{
    return index < vm->low_frames ? index : (HIGH_ZONE >> PAGE_SHIFT) + index - vm->low_frames;
}

static inline u8 *pfn_memory(struct vm *vm, u64 pfn)
{
    return vm->frames + ((pfn < vm->low_frames ? pfn : pfn - (HIGH_ZONE >> PAGE_SHIFT) + vm->low_frames) << PAGE_SHIFT);
}

static inline u64 host_pa(struct vm *vm, const void *at)
{
    return (frame_pfn(vm, frame_index(vm, at)) << PAGE_SHIFT) + ((u64)at & (PAGE_SIZE - 1));
}

static inline struct page *to_page(struct vm *vm, u64 hpa)
{
    return vm->frame_private[frame_index(vm, pfn_memory(vm, (hpa & PT_ADDR) >> PAGE_SHIFT))];
}

static inline struct page *sptep_page(struct vm *vm, u64 *sptep) { return vm->frame_private[frame_index(vm, sptep)]; }
static inline int spte_index(u64 *sptep) { return ((u64)sptep >> 3) & (ENTRIES - 1); }
static inline u64 pages_per(int level) { return 1ULL << 9 * (level - 1); }
static inline int role_level(u32 role) { return role & ROLE_LEVEL; }

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline void list_add(struct list *e, struct list *l) { e->next = l->next; e->prev = l; l->next->prev = e; l->next = e; }
static inline void list_del(struct list *e) { e->prev->next = e->next; e->next->prev = e->prev; e->next = e->prev = NULL; }

struct page *twin_take_page(struct vm *vm);
struct page *twin_make_page(struct vm *vm, u64 gfn, u32 role);
