# SPDX-License-Identifier: GPL-2.0-only
"""The walk of guest tables: what the CPU would find, with its faults and its A/D bits.

One walker serves 4-byte, 8-byte and EPT entries. L2's own tables are walked in two dimensions: each table
address of theirs goes through L1's tables first. Rules: SDM vol. 3 sections 4.3-4.8 and 28.3; APM vol. 2
sections 5.2-5.6 and 15.25.

Inline in the .pxd, since they run in every fault: `entry_size`, `gpte_present`, `gpte_access`, `gpte_gfn`, `have_ad`,
`accessed_bit`, `dirty_bit`, `protect_clean_gpte`, `read_entry`, `gpte_changed`.
"""

import cython
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Access, Ext
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PAGE_SIZE,
    PREFETCH,
    GuestException,
    GuestExceptionPtr,
    GuestFormat,
    Hpa,
    KvmMmuPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    Request,
    SlotFlag,
    gfn_t,
    gpa_t,
    gva_t,
    p_u8,
    p_u32,
    p_u64,
    pages_per_hpage,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import make_request
from cython.cimports.shadowmmu.engine.guest.mmu import get_pdptr, guest_level, guest_pgd
from cython.cimports.shadowmmu.engine.memory.guest_memory import guest_bytes, read_guest
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, mark_page_dirty
from cython.cimports.shadowmmu.x86.ept import Ept
from cython.cimports.shadowmmu.x86.pferr import Pferr
from cython.cimports.shadowmmu.x86.pte import Pte, PteShift
from cython.cimports.shadowmmu.x86.reserved import is_rsvd, rsvd_bits

# --- entries of each format


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_last_gpte(mmu: KvmMmuPtr, level: cython.int, gpte: u64) -> cython.bint:
    """The entry maps a page. In 2-level tables bit 7 counts only with CR4.PSE."""
    if level == 1:
        return True
    if not gpte & Pte.PAGE_SIZE:
        return False
    if mmu.format == GuestFormat.FORMAT_PT32:
        return level == 2 and (mmu.cpu_ext & Ext.CR4_PSE) != 0
    return level <= 3


def read_gpte(vcpu: KvmVcpuPtr, format: GuestFormat, gpa: gpa_t, gpte: p_u64) -> cython.bint:
    """Read one entry of a guest table. False: no memory there."""
    at: p_u8 = guest_bytes(vcpu.kvm, vcpu.smm, gpa, False)
    if at == cython.NULL:
        return False
    gpte[0] = read_entry(format, at)
    return True


# --- rights


def permission_fault(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, pte_access: cython.int, pkey: cython.int, access: u64) -> u64:
    """0 if `access` (Pferr bits) is allowed by `pte_access`, else the error code's P, and PK where a key forbids it."""
    index: cython.int = (access & (Pferr.WRITE | Pferr.USER | Pferr.FETCH)) >> 1
    # EFLAGS.AC lifts SMAP for explicit accesses; the CPU's own (GDT, IDT, TSS) cannot be lifted.
    if vcpu.ac and not access & Pferr.IMPLICIT:
        index |= Pferr.RSVD >> 1
    code: u64 = Pferr.PRESENT
    fault: cython.bint = mmu.permissions[index] >> pte_access & 1
    if mmu.pkru_mask:
        code_bits: cython.int = access & (Pferr.WRITE | Pferr.USER | Pferr.FETCH)
        if pte_access & Access.USER:
            code_bits |= Pferr.RSVD
        if vcpu.pkru >> (2 * pkey) & 3 & (mmu.pkru_mask >> code_bits & 3):
            return code | Pferr.PK
    return code if fault else 0


# --- the walk


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_fault(
    vcpu: KvmVcpuPtr,
    mmu: KvmMmuPtr,
    walker: GuestWalkerPtr,
    addr: gva_t,
    access: u64,
    code: u64,
    rwx: u64,
) -> Walk:
    """Fill in the fault a CPU would raise; `rwx`: EPT rights found so far."""
    code |= access & (Pferr.WRITE | Pferr.USER)
    if access & Pferr.FETCH and mmu.cpu_ext & Ext.HAS_PFERR_FETCH:
        code |= Pferr.FETCH
    fault: GuestExceptionPtr = cython.address(walker.fault)
    fault.pending = True
    fault.error_code = code
    fault.address = addr
    fault.nested_page_fault = mmu != vcpu.walk_mmu
    fault.exit_qualification = 0
    if mmu.format == GuestFormat.FORMAT_EPT and not code & Pferr.RSVD:
        # What was tried in bits 0-2, what the entries allow in bits 3-5 (SDM vol. 3 table 27-7).
        tried: u64 = Ept.WRITE if access & Pferr.WRITE else Ept.EXEC if access & Pferr.FETCH else Ept.READ
        fault.exit_qualification = tried | (rwx & Ept.RWX) << 3
    emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_WALKER_ERROR, code)
    return Walk.WALK_FAULT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def store_entry(vcpu: KvmVcpuPtr, format: GuestFormat, gpa: gpa_t, old: u64, pte: u64) -> Stored:
    """Exchange an entry if it is still `old`.

    Compare and exchange at the entry itself, so that a store of another CPU is not lost (CVE-2022-1158).
    """
    gfn: gfn_t = gpa >> PAGE_SHIFT
    slot: MemSlotPtr = gfn_to_memslot(vcpu.kvm, vcpu.smm, gfn)
    if slot == cython.NULL or slot.flags & SlotFlag.SLOT_READONLY:
        return Stored.STORE_READONLY_SLOT
    at: p_u8 = guest_bytes(vcpu.kvm, vcpu.smm, gpa, True)
    if at == cython.NULL:
        return Stored.STORE_HOST_READONLY
    if read_entry(format, at) != old:
        return Stored.STORE_CHANGED
    if entry_size(format) == 4:
        cython.cast(p_u32, at)[0] = pte
    else:
        cython.cast(p_u64, at)[0] = pte
    mark_page_dirty(slot, gfn)
    return Stored.STORE_DONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def update_accessed_dirty(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, walker: GuestWalkerPtr, write: cython.bint) -> Stored:
    """Set A in every entry walked and, for a write, D in the leaf. An entry in a read-only slot is left alone.

    In the kernel: update_accessed_dirty_bits.
    """
    stored: Stored
    level: cython.int = walker.max_level
    while level >= walker.level:
        old: u64 = walker.ptes[level - 1]
        pte: u64 = old
        gpa: gpa_t = walker.pte_gpa[level - 1]
        if not pte & accessed_bit(mmu.format):
            emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_SET_ACCESSED_BIT, gpa)
            pte |= accessed_bit(mmu.format)
        if level == walker.level and write and not pte & dirty_bit(mmu.format):
            emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_SET_DIRTY_BIT, gpa)
            pte |= dirty_bit(mmu.format)
        if pte != old:
            stored = store_entry(vcpu, mmu.format, walker.real_gpa[level - 1], old, pte)
            if stored == Stored.STORE_DONE:
                walker.ptes[level - 1] = pte
            elif stored != Stored.STORE_READONLY_SLOT:
                return stored
        level -= 1
    return Stored.STORE_DONE


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def leaf_gfn(mmu: KvmMmuPtr, pte: u64, level: cython.int, addr: gva_t) -> gfn_t:
    """The frame that a leaf maps at `addr`, within its large page too; with PSE-36 bits 13-16 are address bits 32-35.

    In the kernel: pse36_gfn_delta, gpte_to_gfn_lvl.
    """
    mask: u64 = pages_per_hpage(level) - 1
    if mmu.format == GuestFormat.FORMAT_PT32 and level == 2:
        mask = 0x3FF
    gfn: gfn_t = (gpte_gfn(mmu.format, pte) & ~mask) + ((addr >> PAGE_SHIFT) & mask)
    if mmu.format == GuestFormat.FORMAT_PT32 and level > 1:
        gfn += ((pte & Pte.PSE36_MASK) << PteShift.PSE36) >> PAGE_SHIFT
    return gfn


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_table(
    vcpu: KvmVcpuPtr,
    mmu: KvmMmuPtr,
    walker: GuestWalkerPtr,
    level: cython.int,
    table: u64,
    addr: gva_t,
    nested_access: u64,
) -> TableRead:
    """Locate and read the entry of `addr` in the `level` table that `table` points to."""
    format: GuestFormat = mmu.format
    bits: cython.int = 10 if format == GuestFormat.FORMAT_PT32 else 9
    index: u64 = (addr >> (PAGE_SHIFT + bits * (level - 1))) & ((cython.cast(u64, 1) << bits) - 1)
    gfn: gfn_t = gpte_gfn(format, table)
    offset: u64 = index * entry_size(format)
    walker.table_gfn[level - 1] = gfn
    walker.pte_gpa[level - 1] = (gfn << PAGE_SHIFT) + offset
    gpa: gpa_t = gfn << PAGE_SHIFT
    if mmu.is_nested_mmu:
        gpa = translate_gpa(vcpu, mmu, gpa, nested_access, cython.address(walker.fault))
        if gpa == Hpa.INVALID_PAGE:
            return TableRead.READ_NESTED_FAULT
    walker.real_gpa[level - 1] = gpa + offset
    at: p_u8 = guest_bytes(vcpu.kvm, vcpu.smm, gpa + offset, False)
    if at == cython.NULL:
        return TableRead.READ_NO_MEMORY
    walker.ptes[level - 1] = read_entry(format, at)
    return TableRead.READ_DONE


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def walk_pdptr(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, addr: gva_t) -> u64:
    """The PDPTE of `addr`. Under nested paging an AMD CPU keeps none in registers: they are read from memory first."""
    if vcpu.kvm.tdp and not vcpu.kvm.vmx and not vcpu.pdptrs_available and not mmu.is_guest_mmu:
        load_pdptrs(vcpu, vcpu.cr3)
    pte: u64 = get_pdptr(vcpu, mmu, (addr >> 30) & 3)
    emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_PAGING_ELEMENT, pte, 3)
    return pte


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def walk_tables(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, walker: GuestWalkerPtr, table: u64, addr: gva_t, access: u64, rights: p_u64) -> Walk:
    """From `walker.max_level`, whose table `table` points to, down to the leaf, whose level is left in `walker.level`.

    `rights` is the AND of all entries, so that it has A if every entry has; NX is inverted to AND like the others.
    """
    nx: u64 = Pte.NX if mmu.format == GuestFormat.FORMAT_PT64 else 0
    nested_access: u64 = Pferr.USER | (Pferr.WRITE if have_ad(mmu) else 0)
    pte: u64 = table
    level: cython.int = walker.max_level + 1
    rights[0] = 0
    rights[0] = ~rights[0]
    while True:
        level -= 1
        pt_access: u64 = rights[0]
        got: TableRead = read_table(vcpu, mmu, walker, level, pte, addr, nested_access)
        if got == TableRead.READ_NESTED_FAULT:
            return Walk.WALK_FAULT
        if got == TableRead.READ_NO_MEMORY:
            return walk_fault(vcpu, mmu, walker, addr, access, 0, pt_access)
        pte = walker.ptes[level - 1]
        emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_PAGING_ELEMENT, pte, level)
        rights[0] = pt_access & (pte ^ nx)
        if not gpte_present(mmu.format, pte):
            return walk_fault(vcpu, mmu, walker, addr, access, 0, rights[0])
        if is_rsvd(cython.address(mmu.guest_rsvd), pte, level):
            return walk_fault(vcpu, mmu, walker, addr, access, Pferr.RSVD | Pferr.PRESENT, rights[0])
        # Not the leaf's rights: a table shared by two parents has a shadow for each (CVE-2021-38198).
        walker.pt_access[level - 1] = gpte_access(mmu.format, pt_access ^ nx)
        if is_last_gpte(mmu, level, pte):
            break
    walker.level = level
    walker.pte_access = gpte_access(mmu.format, rights[0] ^ nx)
    return Walk.WALK_MAPPED


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def walk_leaf(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, walker: GuestWalkerPtr, addr: gva_t, access: u64, rights: u64) -> Walk:
    """Whether the rights of the whole way, and its key (gpte_pkeys), allow `access`, and where the leaf leads; then A and D,
    where they are not set."""
    pte: u64 = walker.ptes[walker.level - 1]
    write: cython.bint = (access & Pferr.WRITE) != 0
    pkey: cython.int = (pte & Pte.PKEY_MASK) >> PteShift.PKEY if mmu.format == GuestFormat.FORMAT_PT64 else 0
    code: u64 = permission_fault(vcpu, mmu, walker.pte_access, pkey, access)
    # 32-bit tables reach no further than 4 GiB, beyond which a nested guest-physical address may lie (H2). Linux walks
    # with its low bits. If that finds a page it maps it where no CPU looks, for ever: then there is a fault here.
    if code or (addr >> 32 and guest_level(mmu) <= 3):
        return walk_fault(vcpu, mmu, walker, addr, access, code, rights)
    gpa: gpa_t = leaf_gfn(mmu, pte, walker.level, addr) << PAGE_SHIFT
    if mmu.is_nested_mmu:
        gpa = translate_gpa(vcpu, mmu, gpa, access, cython.address(walker.fault))
        if gpa == Hpa.INVALID_PAGE:
            return Walk.WALK_FAULT
    walker.gfn = gpa >> PAGE_SHIFT
    if not write:
        walker.pte_access = protect_clean_gpte(mmu, walker.pte_access, pte)
    if not have_ad(mmu):
        return Walk.WALK_MAPPED
    if rights & accessed_bit(mmu.format) and (not write or pte & dirty_bit(mmu.format)):
        return Walk.WALK_MAPPED
    updated: Stored = update_accessed_dirty(vcpu, mmu, walker, write)
    if updated == Stored.STORE_HOST_READONLY:
        return walk_fault(vcpu, mmu, walker, addr, access, 0, rights)
    return Walk.WALK_MAPPED if updated == Stored.STORE_DONE else Walk.WALK_AGAIN


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_once(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, walker: GuestWalkerPtr, addr: gva_t, access: u64) -> Walk:
    """walk_addr_generic: one attempt of `walk_addr`, from CR3 or a PDPTE, table by table, to the leaf."""
    table: u64 = guest_pgd(vcpu, mmu)
    walker.max_level = guest_level(mmu)
    if walker.max_level == 3:
        table = walk_pdptr(vcpu, mmu, addr)
        if not table & Pte.PRESENT:
            return walk_fault(vcpu, mmu, walker, addr, access, 0, 0)
        walker.max_level = 2
    rights: u64 = 0
    result: Walk = walk_tables(vcpu, mmu, walker, table, addr, access, cython.address(rights))
    if result != Walk.WALK_MAPPED:
        return result
    return walk_leaf(vcpu, mmu, walker, addr, access, rights)


def walk_addr(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, walker: GuestWalkerPtr, addr: gva_t, access: u64) -> cython.bint:
    """FNAME(walk_addr): translate `addr` for `access` (Pferr bits). False: `walker.fault` is what the CPU raises."""
    emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_PAGETABLE_WALK, addr, access)
    walker.fault.pending = False
    walker.fault.nested_page_fault = False
    result: Walk = Walk.WALK_AGAIN
    while result == Walk.WALK_AGAIN:
        result = walk_once(vcpu, mmu, walker, addr, access)
    return result == Walk.WALK_MAPPED


# --- uses of the walk


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pdptr_reserved(vcpu: KvmVcpuPtr) -> u64:
    return rsvd_bits(vcpu.kvm.maxphyaddr, 63) | rsvd_bits(5, 8) | rsvd_bits(1, 2)


def load_pdptrs(vcpu: KvmVcpuPtr, cr3: u64) -> cython.bint:
    """Load the four PDPTE registers. False: they cannot be read, or a present one has reserved bits; the old ones stay.

    Shadow paging loads them with CR3. An AMD CPU under nested paging keeps none but reads memory at each walk, so a
    walk in software loads them, once after each run of the guest (svm_cache_reg).
    """
    fault: GuestException
    table: gpa_t = translate_gpa(
        vcpu, vcpu.walk_mmu, cr3 & ~cython.cast(u64, PAGE_SIZE - 1), Pferr.USER | Pferr.WRITE, cython.address(fault)
    )
    if table == Hpa.INVALID_PAGE:
        return False
    pdptrs: u64[4]
    if not read_guest(vcpu.kvm, vcpu.smm, table + (cr3 & 0xFE0), pdptrs, 32):
        return False
    i: cython.int
    for i in range(4):
        if pdptrs[i] & Pte.PRESENT and pdptrs[i] & pdptr_reserved(vcpu):
            return False
    for i in range(4):
        vcpu.walk_mmu.pdptrs[i] = pdptrs[i]
    vcpu.pdptrs_available = True
    make_request(vcpu, Request.REQ_LOAD_MMU_PGD)
    return True


def gva_to_gpa(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, gva: gva_t, access: u64, fault: GuestExceptionPtr) -> gpa_t:
    """nonpaging_gva_to_gpa: translate as a CPU access would, A/D bits included; INVALID_PAGE with `*fault` set where it faults."""
    walker: GuestWalker
    if mmu.format == GuestFormat.FORMAT_NONE:
        return translate_gpa(vcpu, mmu, gva, access, fault)
    if walk_addr(vcpu, mmu, cython.address(walker), gva, access):
        return (walker.gfn << PAGE_SHIFT) + (gva & (PAGE_SIZE - 1))
    fault[0] = walker.fault
    return Hpa.INVALID_PAGE


def translate_gpa(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, gpa: gpa_t, access: u64, fault: GuestExceptionPtr) -> gpa_t:
    """kvm_translate_gpa: an L2 physical address through L1's tables; any other is physical already."""
    if not mmu.is_nested_mmu:
        return gpa
    return gva_to_gpa(vcpu, vcpu.mmu, gpa, access | Pferr.USER, fault)


def group_changed(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, walker: GuestWalkerPtr) -> cython.bint:
    """The level-1 entry is no longer what the walk read. Its aligned block of 8 is kept, for prefetching."""
    size: cython.int = entry_size(mmu.format)
    gpa: gpa_t = walker.pte_gpa[0]
    base: gpa_t = gpa & ~cython.cast(u64, PREFETCH * size - 1)
    at: p_u8 = guest_bytes(vcpu.kvm, vcpu.smm, base, False)
    if at == cython.NULL:
        return True
    i: cython.int
    if size == 8:
        memcpy(walker.prefetch_ptes, at, PREFETCH * 8)
        return walker.prefetch_ptes[(gpa - base) >> 3] != walker.ptes[0]
    for i in range(PREFETCH):
        walker.prefetch_ptes[i] = read_entry(mmu.format, at + i * size)
    return walker.prefetch_ptes[(gpa - base) >> 2] != walker.ptes[0]
