"""Audit: every structure of the engine against the invariants I1 to I18, after any operation.

`audit(vm)` returns what is violated, nothing when all is well. It reads the arena and changes nothing. Each
`validate_*` method checks one structure and names the invariants it decides. I11 and I12 speak of what hardware may
still use and of the guest's own tables: they are decided by the virtual-TLB oracle; here only "no entry and no root
slot leads to a freed page" is.
"""

from typing import NamedTuple

import cython
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.shadowmmu.engine.memslots import gfn_to_memslot, gfn_to_rmap, host_mapping, lpage_info, memslot_for_role, slot_shift
from cython.cimports.shadowmmu.engine.pages import hash_bucket, is_obsolete
from cython.cimports.shadowmmu.engine.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.rmap import sp_gfn_of
from cython.cimports.shadowmmu.engine.role import Role, child_role, has_gptes, role_access, role_as_id, role_level
from cython.cimports.shadowmmu.engine.spte import is_last, is_mmio_spte, is_present, is_writable, spte_pfn
from cython.cimports.shadowmmu.engine.state import (
    ADDRESS_SPACES,
    ENTRIES,
    MAX_SLOTS,
    PAGE_SHIFT,
    PREV_ROOTS,
    Hpa,
    Kvm,
    KvmMmu,
    ListHead,
    MemSlot,
    PteListDesc,
    ShadowPage,
    SlotFlag,
    gfn_t,
    host_pa,
    pages_per_hpage,
    role_t,
    spte_index,
    spte_t,
    sptep_to_sp,
    to_shadow_page,
    u64,
    u8,
)
from cython.cimports.shadowmmu.engine.vm import Vm
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.engine import state as engine_state
from shadowmmu.engine.role import describe_role

MAX_VIOLATIONS = 50


class Violation(NamedTuple):
    """One broken rule."""

    invariant: str
    """I1 to I18, or WARN for what the kernel warns of."""
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


def audit(vm: Vm) -> list[Violation]:
    """Check everything; at most 50 violations are listed."""
    return Auditor(vm).run()


@cython.cclass
class Auditor:
    """One audit of one VM."""

    def __cinit__(self, vm: Vm):
        self.vm = vm
        self.kvm = vm.kvm
        self.found = []
        self.seen_size = self.kvm.npages_pool * ENTRIES
        self.seen = cython.cast(cython.pointer(u8), calloc(self.seen_size, 1))
        if self.seen == cython.NULL:
            raise MemoryError(f"no memory to audit {self.kvm.npages_pool} shadow pages")

    def __dealloc__(self):
        free(self.seen)

    def run(self) -> list[Violation]:
        self.validate_warnings()
        self.validate_pools()
        self.validate_active_list()
        self.validate_hash()
        # The walks below trust headers and lists.
        if any(violation.invariant in ("I3", "I4", "I14") for violation in self.found):
            return self.found
        self.validate_rmaps()
        self.validate_parents()
        self.validate_tables()
        self.validate_unsync()
        self.validate_roots()
        self.validate_special_pages()
        self.validate_accounting()
        self.validate_write_protection()
        return self.found

    # --- words

    @cython.cfunc
    def say(self, id: object, text: object) -> cython.void:
        if len(self.found) < MAX_VIOLATIONS:
            self.found.append(Violation(id, text))

    @cython.cfunc
    def page_name(self, sp: cython.pointer(ShadowPage)) -> object:
        return f"page {host_pa(self.kvm, sp.spt):#x} (gfn {sp.gfn:#x} {describe_role(sp.role)})"

    @cython.cfunc
    def entry_name(self, sp: cython.pointer(ShadowPage), index: cython.int) -> object:
        return f"entry {index:#x} = {sp.spt[index]:#x} of {self.page_name(sp)}"

    @cython.cfunc
    @cython.exceptval(check=False)
    def mark(self, sptep: cython.pointer(spte_t)) -> cython.pointer(ShadowPage):
        """A reverse list names this entry: count that. The live page that holds it, or NULL."""
        sp: cython.pointer(ShadowPage) = self.owner(sptep)
        if sp != cython.NULL:
            self.seen[(sp - self.kvm.pages) * ENTRIES + spte_index(sptep)] += 1
        return sp

    @cython.cfunc
    @cython.exceptval(check=False)
    def owner(self, sptep: cython.pointer(spte_t)) -> cython.pointer(ShadowPage):
        """The live page that holds an entry, or NULL, whatever the pointer is."""
        at: cython.pointer(u8) = cython.cast(cython.pointer(u8), sptep)
        if at < self.kvm.frames or at >= self.kvm.frames + ((self.kvm.low_frames + self.kvm.high_frames) << PAGE_SHIFT):
            return cython.NULL
        sp: cython.pointer(ShadowPage) = sptep_to_sp(self.kvm, sptep)
        return sp if sp != cython.NULL and sp.live else cython.NULL

    # --- structures

    def validate_warnings(self) -> None:
        """What the kernel would WARN or BUG about has not happened."""
        for bug in engine_state.Bug:
            if self.kvm.bugs >> int(bug) & 1:
                self.say("WARN", f"{bug.name} was hit")

    def validate_pools(self) -> None:
        """I14: every header is live or on the free list, once; descriptors in use and free add up."""
        kvm: cython.pointer(Kvm) = self.kvm
        live: u64 = 0
        i: u64
        for i in range(kvm.npages_pool):
            if kvm.pages[i].live:
                live += 1
        on_list: u64 = 0
        entry: cython.pointer(ListHead) = kvm.free_pages.next
        while entry != cython.address(kvm.free_pages) and on_list <= kvm.npages_pool:
            if cython.cast(cython.pointer(ShadowPage), entry).live:
                self.say("I14", f"{self.page_name(cython.cast(cython.pointer(ShadowPage), entry))} is live and on the free list")
            on_list += 1
            entry = entry.next
        if live + on_list != kvm.npages_pool or on_list != kvm.nfree_pages:
            self.say("I14", f"{live} live and {on_list} free headers of {kvm.npages_pool}, {kvm.nfree_pages} said to be free")
        descs: u64 = 0
        desc: cython.pointer(PteListDesc) = kvm.free_descs
        while desc != cython.NULL and descs <= kvm.ndesc:
            descs += 1
            desc = desc.more
        if descs != kvm.nfree_descs:
            self.say("I14", f"{descs} rmap descriptors on the free list, {kvm.nfree_descs} said to be")
        if kvm.zapped_obsolete_pages.next != cython.address(kvm.zapped_obsolete_pages):
            self.say("I14", "zapped pages wait to be freed although the zapping is over")

    def validate_active_list(self) -> None:
        """I4, I5: listed pages are live, valid and not special, newest generation first; the count of used pages agrees."""
        kvm: cython.pointer(Kvm) = self.kvm
        count: u64 = 0
        steps: u64 = 0
        old: cython.bint = False
        entry: cython.pointer(ListHead) = kvm.active_mmu_pages.next
        while entry != cython.address(kvm.active_mmu_pages):
            sp: cython.pointer(ShadowPage) = cython.cast(cython.pointer(ShadowPage), entry)
            count += 1
            steps += 1
            if steps > kvm.npages_pool:
                self.say("I4", "the active list has a loop")
                return
            if not sp.live:
                self.say("I4", f"{self.page_name(sp)} is listed but not live")
            if sp.role & Role.INVALID:
                self.say("I5", f"{self.page_name(sp)} is invalid and on the active list")
                count -= 1  # counted with the invalid roots below
            if sp.special:
                self.say("I13", f"special {self.page_name(sp)} is on the active list")
            if sp.mmu_valid_gen != kvm.mmu_valid_gen:
                old = True
            elif old:
                self.say("I4", f"{self.page_name(sp)} of the present generation stands behind an obsolete one")
            entry = entry.next
        expected: u64 = 0
        i: u64
        for i in range(kvm.npages_pool):
            if kvm.pages[i].live and not kvm.pages[i].special:
                expected += 1
                if kvm.pages[i].role & Role.INVALID:
                    count += 1
        if count != expected or expected != kvm.n_used_mmu_pages:
            self.say("I4", f"{expected} pages exist, {count} are listed or invalid roots, {kvm.n_used_mmu_pages} are counted as used")

    def validate_hash(self) -> None:
        """I3, I17: every page but special ones is once in its gfn's bucket; no two valid ones are alike."""
        kvm: cython.pointer(Kvm) = self.kvm
        hashed: u64 = 0
        expected: u64 = 0
        i: u64
        for i in range(kvm.npages_pool):
            if not kvm.pages[i].live or kvm.pages[i].special:
                continue
            expected += 1
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[i])
            times: cython.int = 0
            steps: u64 = 0
            other: cython.pointer(ShadowPage) = kvm.hash[hash_bucket(sp.gfn)]
            while other != cython.NULL and steps <= kvm.npages_pool:
                steps += 1
                if other == sp:
                    times += 1
                elif other.special or not other.live:
                    self.say("I3", f"{self.page_name(other)} is in the hash and must not be")
                elif other.gfn == sp.gfn and other.role == sp.role and not is_obsolete(kvm, other) and not is_obsolete(kvm, sp):
                    self.say("I3", f"{self.page_name(sp)} exists twice")
                other = other.hash_next
            if times != 1:
                self.say("I3", f"{self.page_name(sp)} is {times} times in its hash bucket")
            hashed += times
        if hashed != expected:
            self.say("I3", f"{expected} pages must be hashed, {hashed} are")

    def validate_rmaps(self) -> None:
        """I1, first half: what an rmap names is a present leaf of that gfn, level and address space."""
        kvm: cython.pointer(Kvm) = self.kvm
        as_id: cython.int
        i: cython.int
        level: cython.int
        for as_id in range(ADDRESS_SPACES):
            for i in range(MAX_SLOTS):
                slot: cython.pointer(MemSlot) = cython.address(kvm.slots[as_id][i])
                if not slot.npages:
                    continue
                for level in range(1, 4):
                    shift: cython.int = slot_shift(level)
                    first: u64 = slot.base_gfn >> shift
                    count: u64 = ((slot.base_gfn + slot.npages - 1) >> shift) - first + 1
                    n: u64
                    for n in range(count):
                        if slot.rmap[level - 1][n]:
                            self.validate_rmap(slot, level, first + n, slot.rmap[level - 1][n])

    @cython.cfunc
    def validate_rmap(self, slot: cython.pointer(MemSlot), level: cython.int, number: u64, head: u64) -> object:
        it: PteListIter
        sptep: cython.pointer(spte_t) = pte_list_first(head, cython.address(it))
        while sptep != cython.NULL:
            sp: cython.pointer(ShadowPage) = self.mark(sptep)
            if sp == cython.NULL:
                self.say("I1", f"the rmap of gfn {number << slot_shift(level):#x} level {level} names an entry in no live table")
                return None
            index: cython.int = spte_index(sptep)
            right: cython.bint = is_present(sptep[0]) and is_last(sptep[0], level) and role_level(sp.role) == level
            if not right or sp_gfn_of(sp, index) >> slot_shift(level) != number or role_as_id(sp.role) != slot.as_id:
                self.say("I1", f"the rmap of gfn {number << slot_shift(level):#x} level {level} names {self.entry_name(sp, index)}")
            sptep = pte_list_next(cython.address(it))
        return None

    def validate_parents(self) -> None:
        """I2, first half: what parent_ptes names is a present link to this page."""
        kvm: cython.pointer(Kvm) = self.kvm
        i: u64
        it: PteListIter
        for i in range(kvm.npages_pool):
            if not kvm.pages[i].live or not kvm.pages[i].parent_ptes:
                continue
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[i])
            if sp.role & Role.INVALID:
                self.say("I17", f"invalid {self.page_name(sp)} is linked")
            sptep: cython.pointer(spte_t) = pte_list_first(sp.parent_ptes, cython.address(it))
            while sptep != cython.NULL:
                parent: cython.pointer(ShadowPage) = self.mark(sptep)
                if parent == cython.NULL:
                    self.say("I2", f"parent_ptes of {self.page_name(sp)} names an entry in no live table")
                    break
                leaf: cython.bint = not is_present(sptep[0]) or is_last(sptep[0], role_level(parent.role))
                if leaf or to_shadow_page(kvm, sptep[0]) != sp:
                    self.say("I2", f"parent_ptes of {self.page_name(sp)} names {self.entry_name(parent, spte_index(sptep))}")
                sptep = pte_list_next(cython.address(it))

    def validate_tables(self) -> None:
        """I1, I2 second halves, I9, I10, I16: every entry of every live table."""
        kvm: cython.pointer(Kvm) = self.kvm
        i: u64
        j: cython.int
        for i in range(kvm.npages_pool):
            if not kvm.pages[i].live:
                continue
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[i])
            for j in range(ENTRIES):
                spte: spte_t = sp.spt[j]
                times: cython.int = self.seen[i * ENTRIES + j]
                if not is_present(spte):
                    if times:
                        self.say("I1", f"a reverse list names absent {self.entry_name(sp, j)}")
                    if spte and not is_mmio_spte(kvm, spte):
                        self.say("I16", f"{self.entry_name(sp, j)} is neither present nor an MMIO mark")
                    continue
                leaf: cython.bint = is_last(spte, role_level(sp.role))
                if times != 1:
                    self.say("I1" if leaf else "I2", f"{self.entry_name(sp, j)} is in {times} reverse lists instead of one")
                if leaf:
                    self.validate_leaf(sp, j)
                else:
                    self.validate_link(sp, j)

    @cython.cfunc
    def validate_leaf(self, sp: cython.pointer(ShadowPage), index: cython.int) -> object:
        """I9: W only with MMU-writable, that only with host-writable; a large page aligned, alone and not logged."""
        kvm: cython.pointer(Kvm) = self.kvm
        spte: spte_t = sp.spt[index]
        level: cython.int = role_level(sp.role)
        if is_mmio_spte(kvm, spte) and not kvm.ept:
            self.say("I16", f"{self.entry_name(sp, index)} is an MMIO mark and present")
        if (is_writable(spte) and not spte & kvm.masks.mmu_writable) or (
            spte & kvm.masks.mmu_writable and not spte & kvm.masks.host_writable
        ):
            self.say("I9", f"{self.entry_name(sp, index)} has W without MMU-writable, or that without host-writable")
        gfn: gfn_t = sp_gfn_of(sp, index)
        slot: cython.pointer(MemSlot) = memslot_for_role(kvm, sp.role, gfn)
        if slot == cython.NULL:
            self.say("I9", f"{self.entry_name(sp, index)} maps gfn {gfn:#x}, which is in no memslot")
            return None
        if spte_pfn(spte) != host_mapping(kvm, slot, gfn) >> PAGE_SHIFT:
            self.say("I9", f"{self.entry_name(sp, index)} maps gfn {gfn:#x} to a frame that is not its own")
        if level == 1:
            return None
        mask: u64 = pages_per_hpage(level) - 1
        if (gfn | spte_pfn(spte)) & mask:
            self.say("I9", f"large {self.entry_name(sp, index)} is not aligned")
        # One that was there before stays, without MMU-writable, until a fault in it maps smaller (slot_write_protect_gfn).
        if lpage_info(slot, gfn, level)[0] and spte & kvm.masks.mmu_writable:
            self.say("I9", f"large {self.entry_name(sp, index)} may become writable where large pages are forbidden")
        if is_writable(spte) and slot.flags & SlotFlag.SLOT_LOG_DIRTY:
            self.say("I9", f"large {self.entry_name(sp, index)} is writable while dirty pages are logged")
        return None

    @cython.cfunc
    def validate_link(self, sp: cython.pointer(ShadowPage), index: cython.int) -> object:
        """I10, I17: a link leads to a live, valid page one level down, of the same kind, with the quadrant of its entry."""
        kvm: cython.pointer(Kvm) = self.kvm
        child: cython.pointer(ShadowPage) = to_shadow_page(kvm, sp.spt[index])
        if child == cython.NULL or not child.live:
            self.say("I11", f"{self.entry_name(sp, index)} leads to no live page")
            return None
        if child.role & Role.INVALID:
            self.say("I17", f"{self.entry_name(sp, index)} leads to invalid {self.page_name(child)}")
        expected: role_t = child_role(sp.role, index, (child.role & Role.DIRECT) != 0, role_access(child.role))
        if child.role & ~cython.cast(role_t, Role.INVALID) != expected:
            self.say("I10", f"{self.entry_name(sp, index)} leads to {self.page_name(child)}, not to {describe_role(expected)}")
        if sp.role & Role.DIRECT and not sp.special and child.gfn != sp_gfn_of(sp, index):
            self.say("I10", f"{self.entry_name(sp, index)} of a direct page leads to gfn {child.gfn:#x}")
        return None

    def validate_unsync(self) -> None:
        """I6, I7: counts agree with bitmaps, every ancestor of an unsync page knows, only level 1 is ever unsync."""
        kvm: cython.pointer(Kvm) = self.kvm
        total: u64 = 0
        i: u64
        j: cython.int
        it: PteListIter
        for i in range(kvm.npages_pool):
            if not kvm.pages[i].live:
                continue
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[i])
            bits: cython.uint = 0
            for j in range(ENTRIES // 64):
                word: u64 = sp.unsync_child_bitmap[j]
                while word:
                    word &= word - 1
                    bits += 1
            if bits != sp.unsync_children:
                self.say("I6", f"{self.page_name(sp)} counts {sp.unsync_children} unsync children and marks {bits}")
            if sp.unsync:
                total += 1
                if role_level(sp.role) != 1 or sp.role & Role.DIRECT:
                    self.say("I6", f"{self.page_name(sp)} is unsync and cannot be")
            if not sp.unsync and not sp.unsync_children:
                continue
            sptep: cython.pointer(spte_t) = pte_list_first(sp.parent_ptes, cython.address(it))
            while sptep != cython.NULL:
                parent: cython.pointer(ShadowPage) = self.owner(sptep)
                j = spte_index(sptep)
                # Bits below may be stale; only a real unsync page must be known above.
                if parent != cython.NULL and not parent.unsync_child_bitmap[j >> 6] >> (j & 63) & 1 and self.has_unsync(sp):
                    self.say("I6", f"{self.entry_name(parent, j)} does not mark that {self.page_name(sp)} is unsync or has such children")
                sptep = pte_list_next(cython.address(it))
        if total != kvm.stat.mmu_unsync:
            self.say("I7", f"{total} pages are unsync, {kvm.stat.mmu_unsync} are counted")

    @cython.cfunc
    @cython.exceptval(check=False)
    def has_unsync(self, sp: cython.pointer(ShadowPage)) -> cython.bint:
        """The page is unsync, or one below it is."""
        if sp.unsync:
            return True
        level: cython.int = role_level(sp.role)
        if level == 1 or not sp.unsync_children:
            return False
        i: cython.int
        for i in range(ENTRIES):
            if is_present(sp.spt[i]) and not is_last(sp.spt[i], level) and self.has_unsync(to_shadow_page(self.kvm, sp.spt[i])):
                return True
        return False

    def validate_roots(self) -> None:
        """I5, I18: root_count is the number of root slots; cached roots are ordinary pages, each once; nothing freed is held."""
        kvm: cython.pointer(Kvm) = self.kvm
        held: dict = {}
        v: cython.int
        k: cython.int
        i: cython.int
        for v in range(kvm.nvcpus):
            for k in range(2):
                mmu: cython.pointer(KvmMmu) = cython.address(kvm.vcpus[v].guest_mmu) if k else cython.address(kvm.vcpus[v].root_mmu)
                self.hold(held, mmu, mmu.root.hpa, True)
                previous: set = set()
                for i in range(PREV_ROOTS):
                    hpa: u64 = mmu.prev_roots[i].hpa
                    if hpa == Hpa.INVALID_PAGE:
                        continue
                    self.hold(held, mmu, hpa, False)
                    # One table under two PCIDs is two roots on one page.
                    root: tuple = (mmu.prev_roots[i].pgd, hpa)
                    if root in previous or root == (mmu.root.pgd, mmu.root.hpa):
                        self.say("I18", f"root {hpa:#x} of CR3 {root[0]:#x} is cached twice")
                    previous.add(root)
        n: u64
        for n in range(kvm.npages_pool):
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[n])
            if sp.live and not sp.special and sp.root_count != held.get(n, 0):
                self.say("I5", f"{self.page_name(sp)} has root_count {sp.root_count}, {held.get(n, 0)} root slots hold it")
            if sp.live and sp.special and sp.root_count:
                self.say("I5", f"special {self.page_name(sp)} has a root_count")

    @cython.cfunc
    def hold(self, held: dict, mmu: cython.pointer(KvmMmu), hpa: u64, current: cython.bint) -> object:
        """Count what one root slot holds: a page, or the four level-2 pages of a bare legacy root."""
        kvm: cython.pointer(Kvm) = self.kvm
        if hpa == Hpa.INVALID_PAGE:
            return None
        sp: cython.pointer(ShadowPage) = to_shadow_page(kvm, hpa)
        i: cython.int
        if sp == cython.NULL:
            if not current or kvm.special_roots or mmu.pae_root == cython.NULL:
                self.say("I18", f"root slot holds {hpa:#x}, which is no shadow page")
                return None
            for i in range(4):
                if mmu.pae_root[i]:
                    child: cython.pointer(ShadowPage) = to_shadow_page(kvm, mmu.pae_root[i])
                    if child == cython.NULL or not child.live:
                        self.say("I11", f"PDPTE {i} leads to no live page")
                    else:
                        held[child - kvm.pages] = held.get(child - kvm.pages, 0) + 1
            return None
        if not sp.live:
            self.say("I11", f"a root slot holds {hpa:#x}, which is freed")
        elif sp.special:
            if not current:
                self.say("I18", f"special {self.page_name(sp)} is kept in prev_roots")
        else:
            held[sp - kvm.pages] = held.get(sp - kvm.pages, 0) + 1
        return None

    def validate_special_pages(self) -> None:
        """I13: special pages form one chain below each special root, in their own vCPU, with no entry beyond their reach."""
        kvm: cython.pointer(Kvm) = self.kvm
        reached: set = set()
        v: cython.int
        k: cython.int
        for v in range(kvm.nvcpus):
            for k in range(2):
                mmu: cython.pointer(KvmMmu) = cython.address(kvm.vcpus[v].guest_mmu) if k else cython.address(kvm.vcpus[v].root_mmu)
                if mmu.root.hpa == Hpa.INVALID_PAGE:
                    continue
                sp: cython.pointer(ShadowPage) = to_shadow_page(kvm, mmu.root.hpa)
                top: cython.int = role_level(sp.role) if sp != cython.NULL else 0
                while sp != cython.NULL and sp.special:
                    reached.add(sp - kvm.pages)
                    self.validate_special(sp, v, top)
                    if role_level(sp.role) == 3 or not is_present(sp.spt[0]):
                        break
                    sp = to_shadow_page(kvm, sp.spt[0])
        i: u64
        for i in range(kvm.npages_pool):
            if kvm.pages[i].live and kvm.pages[i].special and i not in reached:
                self.say("I13", f"special {self.page_name(cython.address(kvm.pages[i]))} belongs to no root")

    @cython.cfunc
    def validate_special(self, sp: cython.pointer(ShadowPage), vcpu: cython.int, top: cython.int) -> object:
        kvm: cython.pointer(Kvm) = self.kvm
        level: cython.int = role_level(sp.role)
        if sp.owner != vcpu:
            self.say("I13", f"special {self.page_name(sp)} of vCPU {sp.owner} is in a root of vCPU {vcpu}")
        if level < 3 or sp.gfn or sp.translation != cython.NULL or sp.unsync:
            self.say("I13", f"special {self.page_name(sp)} has a level, gfn or state that no special page has")
        if sptep_to_sp(kvm, sp.spt) != sp:
            self.say("I13", f"the frame of special {self.page_name(sp)} does not point back to it")
        if (host_pa(kvm, sp.spt) < Hpa.HIGH_ZONE) != (top == 3):
            self.say("I13", f"special {self.page_name(sp)} is on the wrong side of 4 GiB")
        reserved: cython.bint = False
        i: cython.int
        for i in range(ENTRIES):
            if sp.spt[i] and i >= (4 if level == 3 else 1):
                self.say("I13", f"special {self.page_name(sp)} has entry {i:#x}, beyond its reach")
            if top == 3 and is_present(sp.spt[i]) and sp.spt[i] & (Pte.WRITABLE | Pte.USER | Pte.ACCESSED | Pte.NX):
                reserved = True
        # A CPU model may set A in a PDPTE, where a real one reserves it; KVM itself never does.
        if reserved:
            self.say("I13", f"special {self.page_name(sp)} has reserved bits in a PDPTE")
        return None

    def validate_accounting(self) -> None:
        """I7: indirect_shadow_pages, write-tracking counts and large-page causes are what the pages make them."""
        kvm: cython.pointer(Kvm) = self.kvm
        indirect: u64 = 0
        tracked: dict = {}
        causes: dict = {}
        i: u64
        for i in range(kvm.npages_pool):
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[i])
            if not sp.live or sp.special or sp.role & Role.INVALID or not has_gptes(sp.role):
                continue
            indirect += 1
            key: tuple = (role_as_id(sp.role), sp.gfn)
            causes[key] = causes.get(key, 0) + 1
            if role_level(sp.role) > 1:
                tracked[key] = tracked.get(key, 0) + 1
        if indirect != kvm.indirect_shadow_pages:
            self.say("I7", f"{indirect} pages shadow guest tables, {kvm.indirect_shadow_pages} are counted")
        as_id: cython.int
        n: cython.int
        for as_id in range(ADDRESS_SPACES):
            for n in range(MAX_SLOTS):
                if kvm.slots[as_id][n].npages:
                    self.validate_slot(cython.address(kvm.slots[as_id][n]), tracked, causes)

    @cython.cfunc
    def validate_slot(self, slot: cython.pointer(MemSlot), tracked: dict, causes: dict) -> object:
        level: cython.int
        n: u64
        count: u64
        large: dict = {}
        for (as_id, gfn), times in causes.items():
            if as_id == slot.as_id and slot.base_gfn <= gfn < slot.base_gfn + slot.npages:
                for level in range(2, 4):
                    key: tuple = (level, gfn >> slot_shift(level))
                    large[key] = large.get(key, 0) + times
        for n in range(slot.npages):
            if slot.gfn_write_track[n] and slot.gfn_write_track[n] != tracked.get((slot.as_id, slot.base_gfn + n), 0):
                self.say("I7", f"gfn {slot.base_gfn + n:#x} has write-tracking count {slot.gfn_write_track[n]}")
        for (as_id, gfn), times in tracked.items():
            if as_id == slot.as_id and slot.base_gfn <= gfn < slot.base_gfn + slot.npages and not slot.gfn_write_track[gfn - slot.base_gfn]:
                self.say("I7", f"gfn {gfn:#x} holds {times} upper-level tables and is not write-tracked")
        for level in range(2, 4):
            shift: cython.int = slot_shift(level)
            first: u64 = slot.base_gfn >> shift
            count = ((slot.base_gfn + slot.npages - 1) >> shift) - first + 1
            mask: u64 = pages_per_hpage(level) - 1
            skewed: cython.bint = ((slot.base_gfn ^ slot.hva) & mask) != 0
            for n in range(count):
                due: cython.int = large.get((level, first + n), 0)
                # Set, not added: the head, the tail, and a slot whose host address is aligned otherwise.
                if skewed or (n == 0 and slot.base_gfn & mask) or (n == count - 1 and (slot.base_gfn + slot.npages) & mask):
                    due += 1
                if slot.disallow_lpage[level - 2][n] != due:
                    said: cython.int = slot.disallow_lpage[level - 2][n]
                    self.say("I7", f"large page {(first + n) << shift:#x} of level {level}: {said} causes against it, {due} exist")
        return None

    def validate_write_protection(self) -> None:
        """I8: no writable mapping, of any size and in any address space, of a table that is shadowed and in sync."""
        kvm: cython.pointer(Kvm) = self.kvm
        i: u64
        as_id: cython.int
        level: cython.int
        it: PteListIter
        for i in range(kvm.npages_pool):
            sp: cython.pointer(ShadowPage) = cython.address(kvm.pages[i])
            if not sp.live or sp.special or sp.unsync or is_obsolete(kvm, sp) or not has_gptes(sp.role):
                continue
            for as_id in range(ADDRESS_SPACES):
                slot: cython.pointer(MemSlot) = gfn_to_memslot(kvm, as_id, sp.gfn)
                if slot == cython.NULL:
                    continue
                for level in range(1, 4):
                    sptep: cython.pointer(spte_t) = pte_list_first(gfn_to_rmap(slot, sp.gfn, level)[0], cython.address(it))
                    while sptep != cython.NULL:
                        if sptep[0] & (kvm.masks.mmu_writable | Pte.WRITABLE):
                            entry: object = self.entry_name(sptep_to_sp(kvm, sptep), spte_index(sptep))
                            self.say("I8", f"{self.page_name(sp)} is in sync, and {entry} lets its table be written")
                        sptep = pte_list_next(cython.address(it))
