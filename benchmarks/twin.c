/*
 * The fault path of the engine in plain C: what the same work costs without Cython.
 *
 * A PAE guest on a special root, or a 4-level guest, with shadow paging and one memslot. It takes the same steps in
 * the same order as src/shadowmmu/engine: walk the guest's tables with rights, reserved bits and A/D bits; find or
 * make shadow pages through a hash; link them with parent rmaps; make the leaf with the unsync check; enter the gfn's
 * rmap; prefetch the group of eight; count, and ask for flushes. Paths that the benchmark's guests never take
 * (unsync pages, zapping, MMIO, large pages) end in abort(), so that a run that needs them cannot pass unseen.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

enum { PAGE = 4096, ENTRIES = 512, HASH_BITS = 12, EXT = 14, GROUP = 8, MIN_FREE = 5, MIN_DESCS = 40 };
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, HOST_W = 0x200, MMU_W = 0x400, MMU_PRESENT = 0x800 };
enum { EXEC = 1, WRITE = 2, USER = 4, ALL = 7 };
enum { LEVEL = 0xF, FOUR_BYTE = 0x10, QUADRANT = 0x60, DIRECT = 0x80, ACCESS = 0x700, INVALID = 0x800, EFER_NX = 0x1000, CR0_WP = 0x2000 };
enum { RETRY = 1, EMULATE = 2, FIXED = 4, SPURIOUS = 5, INJECT = 6 };
#define NX (1ULL << 63)
#define ADDR 0x000FFFFFFFFFF000ULL
#define HIGH 0x100000000ULL

struct list { struct list *next, *prev; };
struct desc { struct desc *more; u64 count; u64 *sptes[EXT]; };

struct page {
    struct list link;
    struct page *hash_next;
    u64 *spt, *translation;
    u64 gfn, parents;
    u32 role;
    int root_count;
    u32 unsync_children;
    int flooding;
    u8 gen, unsync, special;
    u64 unsync_bitmap[8];
};

struct walker {
    int level, max_level, access;
    u64 table_gfn[5], pte_gpa[5], ptes[5];
    int pt_access[5];
    u64 gfn, group[GROUP];
};

struct fault {
    u64 addr, code, gfn, pfn, hva, seq;
    int write, user, fetch, present, rsvd, writable, max_level, goal_level;
};

struct vm {
    u64 low_frames, user_frames, table_base, npages, slot_pages;
    u64 used, max, indirect, seq, nfree, nfree_descs;
    int levels;         /* of the guest: 3 or 4 */
    int root_level;     /* of the shadow: 3 or 4 */
    u32 root_role, requests;
    u8 gen, permissions[16];
    int in_invalidate;
    u64 rsvd[2][5], shadow_rsvd[2][5];
    u64 cr3, pdptrs[4];
    u8 *frames;
    struct page **private_, *pages, *hash[1 << HASH_BITS], *root;
    u64 *translations, *hva_map, *rmap[3];
    int *disallow[2];
    u16 *tracked;
    struct desc *descs, *free_descs;
    struct list active, free_pages;
    u64 taken, fixed, spurious, injected, pages_4k, misses, max_rmap, flush_requests;
};

static inline u64 frame_index(struct vm *vm, const void *at) { return (u64)((u8 *)at - vm->frames) >> 12; }
static inline u64 frame_pfn(struct vm *vm, u64 i) { return i < vm->low_frames ? i : (HIGH >> 12) + i - vm->low_frames; }
static inline u8 *pfn_memory(struct vm *vm, u64 pfn)
{
    return vm->frames + ((pfn < vm->low_frames ? pfn : pfn - (HIGH >> 12) + vm->low_frames) << 12);
}
static inline u64 host_pa(struct vm *vm, const void *at) { return (frame_pfn(vm, frame_index(vm, at)) << 12) + ((u64)at & 4095); }
static inline struct page *to_page(struct vm *vm, u64 hpa) { return vm->private_[frame_index(vm, pfn_memory(vm, (hpa & ADDR) >> 12))]; }
static inline struct page *sptep_page(struct vm *vm, u64 *sptep) { return vm->private_[frame_index(vm, sptep)]; }
static inline int sptep_index(u64 *sptep) { return ((u64)sptep >> 3) & 511; }
static inline u64 bucket(u64 gfn) { return (gfn * 0x61C8864680B583EBULL) >> 52; }

static void list_init(struct list *l) { l->next = l->prev = l; }
static void list_add(struct list *e, struct list *l) { e->next = l->next; e->prev = l; l->next->prev = e; l->next = e; }
static void list_del(struct list *e) { e->prev->next = e->next; e->next->prev = e->prev; }

static void flush_remote(struct vm *vm) { vm->flush_requests++; vm->requests |= 8; }

/* --- guest memory */

static u8 *guest_bytes(struct vm *vm, u64 gpa, int write)
{
    if (gpa >> 12 >= vm->slot_pages)
        return NULL;
    u64 entry = vm->hva_map[gpa >> 12];
    if (!(entry & 1) || (write && (entry & 0x12) != 2))
        return NULL;
    return pfn_memory(vm, entry >> 12) + (gpa & 4095);
}

/* --- the walk of the guest's tables */

static inline int gpte_access(u64 gpte) { return (gpte & (W | U)) | (gpte & NX ? 0 : EXEC); }
static inline int reserved(u64 rsvd[2][5], u64 e, int level) { return (e & rsvd[(e >> 7) & 1][level - 1]) != 0; }

static int update_ad(struct vm *vm, struct walker *w, int write)
{
    for (int level = w->max_level; level >= w->level; level--) {
        u64 old = w->ptes[level - 1], pte = old | A;
        if (level == w->level && write)
            pte |= D;
        if (pte == old)
            continue;
        u8 *at = guest_bytes(vm, w->pte_gpa[level - 1], 1);
        if (!at)
            continue;
        if (*(u64 *)at != old)
            return 0;
        *(u64 *)at = pte;
        w->ptes[level - 1] = pte;
    }
    return 1;
}

static int walk_once(struct vm *vm, struct walker *w, u64 addr, u64 code)
{
    u64 pte = vm->cr3, access = ~0ULL, above;
    int write = (code & W) != 0;
    w->level = vm->levels;
    if (w->level <= 3 && addr >> 32)
        return 0;
    if (w->level == 3) {
        pte = vm->pdptrs[addr >> 30 & 3];
        if (!(pte & P))
            return 0;
        w->level = 2;
    }
    w->max_level = w->level++;
    do {
        above = access;
        w->level--;
        u64 gfn = (pte & ADDR) >> 12, offset = (addr >> (12 + 9 * (w->level - 1)) & 511) * 8;
        w->table_gfn[w->level - 1] = gfn;
        w->pte_gpa[w->level - 1] = (gfn << 12) + offset;
        u8 *at = guest_bytes(vm, w->pte_gpa[w->level - 1], 0);
        if (!at)
            return 0;
        pte = w->ptes[w->level - 1] = *(u64 *)at;
        access = above & (pte ^ NX);
        if (!(pte & P) || reserved(vm->rsvd, pte, w->level))
            return 0;
        w->pt_access[w->level - 1] = gpte_access(above ^ NX);
    } while (w->level > 1 && !(pte & PS && w->level <= 3));
    w->access = gpte_access(access ^ NX);
    if (vm->permissions[(code & (W | U | 0x10)) >> 1] >> w->access & 1)
        return 0;
    u64 mask = (1ULL << 9 * (w->level - 1)) - 1;
    w->gfn = (((pte & ADDR) >> 12) & ~mask) + (addr >> 12 & mask);
    if (!write && !(pte & D))
        w->access &= ~WRITE;
    if (!((access & A) && (!write || pte & D)) && !update_ad(vm, w, write))
        return -1;
    return 1;
}

static int walk(struct vm *vm, struct walker *w, u64 addr, u64 code)
{
    int result;
    do
        result = walk_once(vm, w, addr, code);
    while (result < 0);
    return result;
}

static int changed(struct vm *vm, struct walker *w, int level)
{
    u64 gpa = w->pte_gpa[level - 1];
    u8 *at = guest_bytes(vm, level > 1 ? gpa : gpa & ~63ULL, 0);
    if (!at)
        return 1;
    if (level > 1)
        return *(u64 *)at != w->ptes[level - 1];
    for (int i = 0; i < GROUP; i++)
        w->group[i] = ((u64 *)at)[i];
    return w->group[(gpa & 63) / 8] != w->ptes[0];
}

/* --- reverse maps */

static u64 list_append(struct vm *vm, u64 *sptep, u64 *head)
{
    struct desc *d;
    u64 count = 0;
    if (!*head) {
        *head = (u64)sptep;
        return 0;
    }
    if (!(*head & 1)) {
        d = vm->free_descs;
        vm->free_descs = d->more;
        vm->nfree_descs--;
        d->more = NULL;
        d->sptes[0] = (u64 *)*head;
        d->sptes[1] = sptep;
        d->count = 2;
        *head = (u64)d | 1;
        return 1;
    }
    for (d = (struct desc *)(*head & ~1ULL); d->count == EXT; d = d->more) {
        count += EXT;
        if (!d->more) {
            struct desc *fresh = vm->free_descs;
            vm->free_descs = fresh->more;
            vm->nfree_descs--;
            fresh->more = NULL;
            fresh->count = 0;
            d->more = fresh;
        }
    }
    d->sptes[d->count++] = sptep;
    return count + d->count - 1;
}

static int write_protect(struct vm *vm, u64 gfn)
{
    int flush = 0;
    for (int level = 0; level < 3; level++) {
        u64 head = vm->rmap[level][gfn >> 9 * level];
        struct desc *d = (struct desc *)(head & ~1ULL), single = { .count = 1, .sptes = { (u64 *)head } };
        if (!head)
            continue;
        if (!(head & 1))
            d = &single;
        for (; d; d = d->more)
            for (u64 i = 0; i < d->count; i++)
                if (*d->sptes[i] & (W | MMU_W)) {
                    flush |= (*d->sptes[i] & MMU_W) != 0;
                    *d->sptes[i] &= ~(u64)(W | MMU_W);
                }
    }
    return flush;
}

/* --- shadow pages */

static int obsolete(struct vm *vm, struct page *sp) { return sp->role & INVALID || sp->gen != vm->gen; }

static struct page *take(struct vm *vm)
{
    struct list *e = vm->free_pages.next;
    list_del(e);
    vm->nfree--;
    struct page *sp = (struct page *)e;
    memset(sp, 0, sizeof(*sp));
    u64 frame = vm->table_base + (sp - vm->pages);
    sp->spt = (u64 *)(vm->frames + (frame << 12));
    memset(sp->spt, 0, PAGE);
    vm->private_[frame] = sp;
    sp->gen = vm->gen;
    return sp;
}

static struct page *get_page(struct vm *vm, u64 gfn, u32 role)
{
    struct page *sp;
    for (sp = vm->hash[bucket(gfn)]; sp; sp = sp->hash_next) {
        if (obsolete(vm, sp) || sp->gfn != gfn)
            continue;
        if (sp->unsync)
            abort();
        if (sp->role == role) {
            sp->flooding = 0;
            return sp;
        }
    }
    vm->misses++;
    sp = take(vm);
    if (!(role & DIRECT))
        sp->translation = vm->translations + (sp - vm->pages) * ENTRIES;
    list_add(&sp->link, &vm->active);
    vm->used++;
    sp->gfn = gfn;
    sp->role = role;
    sp->hash_next = vm->hash[bucket(gfn)];
    vm->hash[bucket(gfn)] = sp;
    if (!(role & DIRECT)) {
        vm->indirect++;
        if ((role & LEVEL) > 1)
            vm->tracked[gfn]++;
        vm->disallow[0][gfn >> 9]++;
        vm->disallow[1][gfn >> 18]++;
        if (write_protect(vm, gfn))
            flush_remote(vm);
    }
    return sp;
}

static struct page *get_child(struct vm *vm, u64 *sptep, u64 gfn, int access)
{
    struct page *parent = sptep_page(vm, sptep);
    u32 role = (parent->role & ~(u32)(LEVEL | ACCESS | DIRECT | QUADRANT | INVALID)) | ((parent->role & LEVEL) - 1) | access << 8;
    if (*sptep & MMU_PRESENT) {
        struct page *child = to_page(vm, *sptep);
        if (*sptep & PS || child->gfn != gfn || child->role != role)
            abort();
        return NULL;
    }
    return get_page(vm, gfn, role);
}

static void link_page(struct vm *vm, u64 *sptep, struct page *sp)
{
    if (*sptep & MMU_PRESENT || sp->unsync || sp->unsync_children)
        abort();
    *sptep = host_pa(vm, sp->spt) | MMU_PRESENT | P | (vm->root_level == 3 && (sp->role & LEVEL) == 2 ? 0 : W | U | A);
    list_append(vm, sptep, &sp->parents);
}

/* --- the leaf */

static int may_write(struct vm *vm, u64 gfn)
{
    if (vm->tracked[gfn])
        return 0;
    for (struct page *sp = vm->hash[bucket(gfn)]; sp; sp = sp->hash_next)
        if (sp->gfn == gfn && !obsolete(vm, sp) && !(sp->role & DIRECT))
            abort(); /* would go unsync */
    return 1;
}

static int set_leaf(struct vm *vm, u64 *sptep, int access, u64 gfn, u64 pfn, struct fault *f)
{
    struct page *sp = sptep_page(vm, sptep);
    int host_writable = !f || f->writable, flush = 0, protect = 0, was = 0, result = FIXED;
    u64 old = *sptep;
    if (old & MMU_PRESENT) {
        if ((old & ADDR) >> 12 != pfn)
            abort();
        was = 1;
    }
    u64 e = MMU_PRESENT | P | (f ? A : 0) | (access & EXEC ? 0 : NX) | (access & USER ? U : 0) | pfn << 12;
    if (host_writable)
        e |= HOST_W;
    else
        access &= ~WRITE;
    if (access & WRITE) {
        int was_writable = (old & W) != 0;
        e |= W | MMU_W;
        if (!(was_writable && was) && !may_write(vm, gfn)) {
            protect = 1;
            e &= ~(u64)(W | MMU_W);
        } else if (!was_writable)
            e |= D;
    }
    if (!f)
        e &= ~(u64)A;
    if (reserved(vm->shadow_rsvd, e, 1))
        abort();
    if (old == e)
        result = SPURIOUS;
    else {
        *sptep = e;
        if (was)
            flush = (old & MMU_W && !(e & W)) || (old & A && !(e & A)) || (old & D && !(e & D));
    }
    if (protect && f && f->write)
        result = EMULATE;
    if (flush)
        flush_remote(vm);
    sp->translation[sptep_index(sptep)] = gfn << 12 | access;
    if (!was) {
        vm->pages_4k++;
        u64 count = list_append(vm, sptep, &vm->rmap[0][gfn]);
        if (count > vm->max_rmap)
            vm->max_rmap = count;
        if (count > 1000)
            abort();
    }
    return result;
}

static void prefetch(struct vm *vm, struct walker *w, u64 *sptep)
{
    struct page *sp = sptep_page(vm, sptep);
    int first = sptep_index(sptep) & ~7;
    if (vm->in_invalidate)
        return;
    for (int i = 0; i < GROUP; i++) {
        u64 *at = &sp->spt[first + i], gpte = w->group[i];
        if (at == sptep || *at & MMU_PRESENT)
            continue;
        if (!(gpte & P) || !(gpte & A) || reserved(vm->rsvd, gpte, 1)) {
            *at = 0;
            return;
        }
        int access = (sp->role >> 8 & 7) & gpte_access(gpte);
        u64 gfn = (gpte & ADDR) >> 12;
        if (!(gpte & D))
            access &= ~WRITE;
        if (gfn >= vm->slot_pages || (vm->hva_map[gfn] & 0x13) != 3)
            return;
        set_leaf(vm, at, access, gfn, vm->hva_map[gfn] >> 12, NULL);
    }
}

/* --- the fault */

static int fetch(struct vm *vm, struct fault *f, struct walker *w)
{
    u64 *table = vm->root->spt, *sptep = NULL;
    int level = vm->root_level;
    if (changed(vm, w, w->max_level))
        return RETRY;
    for (; level > w->level; level--) {
        u64 index = f->addr >> (12 + 9 * (level - 1)) & 511;
        if (level == 3 && vm->root->special)
            index &= 3;
        sptep = table + index;
        sptep_page(vm, sptep)->flooding = 0;
        struct page *sp = get_child(vm, sptep, w->table_gfn[level - 2], w->pt_access[level - 2]);
        if (sp && sp->unsync_children)
            abort();
        if (changed(vm, w, level - 1))
            return RETRY;
        if (sp)
            link_page(vm, sptep, sp);
        table = to_page(vm, *sptep)->spt;
    }
    if (level != 1)
        abort(); /* a large guest page */
    sptep = table + (f->addr >> 12 & 511);
    sptep_page(vm, sptep)->flooding = 0;
    int result = set_leaf(vm, sptep, w->access, f->gfn, f->pfn, f);
    if (result != SPURIOUS)
        prefetch(vm, w, sptep);
    return result;
}

static int page_fault(struct vm *vm, u64 addr, u64 code)
{
    struct walker w;
    struct fault f;
    memset(&f, 0, sizeof(f));
    f.addr = addr;
    f.code = code;
    f.present = code & P;
    f.write = (code & W) != 0;
    f.user = (code & U) != 0;
    f.rsvd = (code & 8) != 0;
    f.fetch = (code & 0x10) != 0;
    f.max_level = 3;
    f.goal_level = 1;
    vm->taken++;
    if (!walk(vm, &w, addr, code)) {
        vm->injected++;
        return INJECT;
    }
    f.gfn = w.gfn;
    if (f.gfn >= vm->slot_pages)
        abort();
    if (f.present && f.write && vm->tracked[f.gfn])
        abort(); /* would be emulated */
    if (vm->nfree < MIN_FREE || vm->nfree_descs < MIN_DESCS)
        abort();
    if (w.access & WRITE)
        for (int level = w.level; level <= w.max_level; level++)
            if (w.gfn == w.table_gfn[level - 1])
                abort();
    f.seq = vm->seq;
    f.hva = f.gfn;
    u64 entry = vm->hva_map[f.hva];
    if (!(entry & 1) || (f.write && (entry & 0x12) != 2))
        abort();
    f.pfn = entry >> 12;
    f.writable = (entry & 0x12) == 2;
    if (vm->max < vm->used + MIN_FREE)
        abort(); /* would recycle */
    if (obsolete(vm, vm->root) || vm->in_invalidate || vm->seq != f.seq)
        return RETRY;
    int result = fetch(vm, &f, &w);
    if (result == FIXED)
        vm->fixed++;
    else if (result == SPURIOUS)
        vm->spurious++;
    return result;
}

/* --- what the benchmark calls */

u64 twin_touch(struct vm *vm, u64 gva, u64 count, u64 step, u64 code)
{
    u64 fixed = 0;
    for (u64 i = 0; i < count; i++)
        fixed += page_fault(vm, gva + i * step, code) == FIXED;
    return fixed;
}

static void set_reserved(u64 rsvd[2][5], int levels, int width)
{
    u64 high = ~0ULL >> (63 - 62 + width) << width; /* bits width..62 */
    high &= levels == 3 ? ~0ULL >> 1 : ADDR | 0xFFF;
    for (int i = 0; i < 5; i++)
        rsvd[0][i] = rsvd[1][i] = high;
    rsvd[1][1] |= 0x1FE000;
    if (levels == 3)
        rsvd[0][2] = rsvd[1][2] = high | NX | 0x1E6;
    else {
        rsvd[0][3] |= 0x180;
        rsvd[1][3] |= 0x180;
        rsvd[1][2] |= 0x3FFFE000;
    }
}

static void *room(u64 bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* A VM of `pages` guest pages whose frames follow 3 low ones, then 64 spare frames, then `npages` tables. */
struct vm *twin_create(u64 pages, u64 npages, u64 ndesc, u64 limit, int levels)
{
    struct vm *vm = room(sizeof(*vm));
    u64 frames = 3 + pages + 64 + npages;
    vm->low_frames = 3;
    vm->user_frames = pages + 64;
    vm->table_base = 3 + vm->user_frames;
    vm->npages = npages;
    vm->slot_pages = pages;
    vm->max = limit;
    vm->levels = levels;
    vm->root_level = levels;
    vm->root_role = levels | ALL << 8 | EFER_NX | CR0_WP;
    vm->frames = room(frames << 12);
    vm->private_ = room(frames * 8);
    vm->pages = room(npages * sizeof(struct page));
    vm->translations = room(npages * PAGE);
    vm->hva_map = room(pages * 8);
    vm->descs = room(ndesc * sizeof(struct desc));
    vm->tracked = room(pages * 2);
    for (int level = 0; level < 3; level++)
        vm->rmap[level] = room(((pages >> 9 * level) + 1) * 8);
    for (int level = 0; level < 2; level++)
        vm->disallow[level] = room(((pages >> 9 * (level + 1)) + 1) * 4);
    list_init(&vm->active);
    list_init(&vm->free_pages);
    for (u64 i = npages; i-- > 0;)
        list_add(&vm->pages[i].link, &vm->free_pages);
    vm->nfree = npages;
    for (u64 i = 0; i < ndesc; i++) {
        vm->descs[i].more = vm->free_descs;
        vm->free_descs = &vm->descs[i];
    }
    vm->nfree_descs = ndesc;
    for (u64 i = 0; i < pages; i++)
        vm->hva_map[i] = frame_pfn(vm, 3 + i) << 12 | 7;
    set_reserved(vm->rsvd, levels, 40);
    set_reserved(vm->shadow_rsvd, levels, 46);
    for (int index = 0; index < 16; index++)
        for (int access = 0; access < 8; access++) {
            int code = index << 1;
            int bad = (code & W && !(access & WRITE)) || (code & U && !(access & USER)) || (code & 0x10 && !(access & EXEC));
            vm->permissions[index] |= bad << access;
        }
    return vm;
}

u8 *twin_memory(struct vm *vm) { return vm->frames + (vm->low_frames << 12); }

/* Load a root for `cr3`: a special page on the low frame 1 for PAE, an ordinary page for 4 levels. */
void twin_load(struct vm *vm, u64 cr3)
{
    vm->cr3 = cr3;
    if (vm->levels == 3) {
        memcpy(vm->pdptrs, guest_bytes(vm, cr3, 0), 32);
        vm->root = take(vm);
        vm->private_[frame_index(vm, vm->root->spt)] = NULL;
        vm->root->spt = (u64 *)(vm->frames + PAGE);
        memset(vm->root->spt, 0, PAGE);
        vm->private_[1] = vm->root;
        vm->root->role = vm->root_role;
        vm->root->special = 1;
        return;
    }
    vm->root = get_page(vm, (cr3 & ADDR) >> 12, vm->root_role);
    vm->root->root_count++;
}

u64 *twin_table(struct vm *vm, u64 hpa) { return (u64 *)pfn_memory(vm, hpa >> 12); }
u64 twin_root(struct vm *vm) { return host_pa(vm, vm->root->spt); }

void twin_counters(struct vm *vm, u64 *out)
{
    u64 values[] = { vm->taken, vm->fixed, vm->spurious, vm->injected, vm->pages_4k, vm->misses, vm->max_rmap, vm->flush_requests,
                     vm->used, vm->indirect };
    memcpy(out, values, sizeof(values));
}

void twin_destroy(struct vm *vm)
{
    u64 frames = 3 + vm->slot_pages + 64 + vm->npages;
    munmap(vm->frames, frames << 12);
    munmap(vm->translations, vm->npages * PAGE);
    munmap(vm, sizeof(*vm));
}
