# SPDX-License-Identifier: GPL-2.0-only
"""I10 of roots, and I18: the root in use is what the vCPU's registers ask for; no root slot holds a stale page unasked.

Roles are computed here from the registers, not taken from the engine's MMUs: a bit that it forgets shows at once.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, RoleShift, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PREV_ROOTS,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    NestedStatePtr,
    Request,
    ShadowPagePtr,
    dummy_root,
    gfn_t,
    p_spte,
    role_t,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Efer
from cython.cimports.shadowmmu.x86.ept import Eptp
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.engine.arena.role import describe_role


def validate_root_roles(auditor: Auditor) -> None:
    """I10, I18: the roots of each vCPU."""
    v: cython.int
    for v in range(auditor.kvm.nvcpus):
        vcpu: KvmVcpuPtr = cython.address(auditor.kvm.vcpus[v])
        validate_fresh(auditor, vcpu, cython.address(vcpu.root_mmu))
        validate_fresh(auditor, vcpu, cython.address(vcpu.guest_mmu))
        if vcpu.mmu.root.hpa != Hpa.INVALID_PAGE and vcpu.mmu.root.hpa != dummy_root(auditor.kvm) and not is_half_way(vcpu):
            validate_root(auditor, vcpu)


@cython.cfunc
def validate_fresh(auditor: Auditor, vcpu: KvmVcpuPtr, mmu: KvmMmuPtr) -> object:
    """I18: a slot whose page is invalid or obsolete is known: the vCPU has been asked to drop such roots when it runs again."""
    if vcpu.requests & Request.REQ_MMU_FREE_OBSOLETE_ROOTS:
        return None
    i: cython.int
    for i in range(-1, PREV_ROOTS):
        hpa: u64 = mmu.root.hpa if i < 0 else mmu.prev_roots[i].hpa
        sp: ShadowPagePtr = to_shadow_page(auditor.kvm, hpa) if hpa != Hpa.INVALID_PAGE else cython.NULL
        if sp != cython.NULL and sp.live and is_obsolete(auditor.kvm, sp):
            auditor.say("I18", f"vcpu {vcpu.id} keeps obsolete root {auditor.page_name(sp)}, and has not been asked to drop it")
    return None


# --- what registers ask for


@cython.cfunc
@cython.exceptval(check=False)
def walks_nested(vcpu: KvmVcpuPtr) -> cython.bint:
    """The tables that are shadowed are L1's nested ones."""
    return vcpu.nested.guest_mode and vcpu.nested.npt


@cython.cfunc
@cython.exceptval(check=False)
def guest_levels(cr0: u64, cr4: u64, efer: u64) -> cython.int:
    """Levels of the tables that these registers make a CPU walk (SDM 4.1.1)."""
    if not cr0 & Cr0.PG:
        return 0
    if not cr4 & Cr4.PAE:
        return 2
    if not efer & Efer.LMA:
        return 3
    return 5 if cr4 & Cr4.LA57 else 4


@cython.cfunc
@cython.exceptval(check=False)
def paging_role(kvm: KvmPtr, cr0: u64, cr4: u64, efer: u64) -> role_t:
    """What of these registers changes how entries are read or what they allow."""
    if not cr0 & Cr0.PG:
        return Role.DIRECT
    wp: cython.bint = cr0 & Cr0.WP != 0
    role: role_t = Role.CR0_WP if wp else 0
    role |= 0 if cr4 & Cr4.PAE else Role.HAS_4_BYTE_GPTE
    role |= Role.EFER_NX if efer & Efer.NXE else 0
    role |= Role.SMEP_ANDNOT_WP if cr4 & Cr4.SMEP and (not wp or kvm.rules.smep_in_role) else 0
    return role | (Role.SMAP_ANDNOT_WP if cr4 & Cr4.SMAP and not wp else 0)


@cython.cfunc
@cython.exceptval(check=False)
def ept_role(vcpu: KvmVcpuPtr) -> role_t:
    """Of L1's EPT: all from its pointer (SDM 24.6.11)."""
    eptp: u64 = vcpu.nested.ncr3
    role: role_t = ((eptp & Eptp.WALK_LENGTH_MASK) >> Eptp.WALK_LENGTH_SHIFT) + 1
    return role | (0 if eptp & Eptp.AD_ENABLED else Role.AD_DISABLED)


@cython.cfunc
@cython.exceptval(check=False)
def npt_role(vcpu: KvmVcpuPtr) -> role_t:
    """Of L1's NPT: read as L1's own tables would be, by the levels of the host (APM 15.25.3)."""
    kvm: KvmPtr = vcpu.kvm
    cr4: u64 = vcpu.nested.l1_cr4
    cr0: u64 = Cr0.PG
    if kvm.rules.npt_role_plain:
        cr0 |= Cr0.WP
        cr4 &= ~cython.cast(u64, Cr4.SMEP | Cr4.SMAP)
    role: role_t = paging_role(kvm, cr0, cr4, vcpu.nested.l1_efer)
    if kvm.host_levels == 5 and guest_levels(cr0, cr4, vcpu.nested.l1_efer) == 4:
        role |= Role.PASSTHROUGH
    return role | cython.cast(role_t, kvm.host_levels)


@cython.cfunc
@cython.exceptval(check=False)
def host_role(kvm: KvmPtr) -> role_t:
    """Of the host's own nested tables: nothing in them is the guest's."""
    levels: role_t = kvm.host_levels
    if kvm.ept:
        levels = 5 if kvm.host_levels == 5 and kvm.maxphyaddr > 48 else 4
    role: role_t = Role.DIRECT | Role.CR0_WP | Role.EFER_NX
    return role | levels | (Role.AD_DISABLED if kvm.ept and not kvm.ept_ad else 0)


@cython.cfunc
@cython.exceptval(check=False)
def is_half_way(vcpu: KvmVcpuPtr) -> cython.bint:
    """A switch between L1 and L2 has failed: the MMU is still that of the one that ran, until L1 gets its #VMEXIT or is shut down.

    VMRUN refused L2 and left L1's registers, as far as they concern the MMU; or a CR3 was illegal, and nothing has been entered since.
    """
    nested: NestedStatePtr = cython.address(vcpu.nested)
    if (vcpu.mmu.root_role & Role.GUEST_MODE != 0) == nested.guest_mode:
        return False
    if vcpu.requests & Request.REQ_MMU_SYNC:
        return True
    same_efer: cython.bint = not (vcpu.efer ^ nested.l1_efer) & (Efer.LME | Efer.LMA | Efer.NXE)
    return same_efer and vcpu.cr0 == nested.l1_cr0 and vcpu.cr3 == nested.l1_cr3 and vcpu.cr4 == nested.l1_cr4


@cython.cfunc
@cython.exceptval(check=False)
def role_asked(vcpu: KvmVcpuPtr) -> role_t:
    """The role of the root that this vCPU must run on now."""
    kvm: KvmPtr = vcpu.kvm
    role: role_t = cython.cast(role_t, Access.ALL) << RoleShift.ACCESS_SHIFT | cython.cast(role_t, vcpu.smm) << RoleShift.SMM_SHIFT
    if vcpu.nested.guest_mode:
        role |= Role.GUEST_MODE
    if walks_nested(vcpu):
        return role | (ept_role(vcpu) if kvm.ept else npt_role(vcpu))
    if kvm.tdp:
        return role | host_role(kvm)
    levels: cython.int = guest_levels(vcpu.cr0, vcpu.cr4, vcpu.efer)
    # The hardware walks three levels at least, with NX on whatever the guest has.
    return role | paging_role(kvm, vcpu.cr0, vcpu.cr4, vcpu.efer) | Role.EFER_NX | cython.cast(role_t, max(levels, 3))


@cython.cfunc
@cython.exceptval(check=False)
def gfn_asked(vcpu: KvmVcpuPtr) -> gfn_t:
    """The guest's top table."""
    return ((vcpu.nested.ncr3 if walks_nested(vcpu) else vcpu.cr3) & Pte.ADDR) >> PAGE_SHIFT


# --- and what is there


@cython.cfunc
def validate_root(auditor: Auditor, vcpu: KvmVcpuPtr) -> object:
    """I10: the root in use, or below a special or bare one the level-2 pages."""
    asked: role_t = role_asked(vcpu)
    sp: ShadowPagePtr = to_shadow_page(auditor.kvm, vcpu.mmu.root.hpa)
    if sp == cython.NULL:
        return validate_top(auditor, vcpu, vcpu.mmu.pae_root, asked) if vcpu.mmu.pae_root != cython.NULL else None
    if sp.special:
        table: p_spte = level_3(auditor.kvm, sp)
        return validate_top(auditor, vcpu, table, asked) if table != cython.NULL else None
    gfn: gfn_t = 0 if asked & Role.DIRECT else gfn_asked(vcpu)
    if (sp.role ^ asked) & ~cython.cast(role_t, Role.INVALID) or sp.gfn != gfn:
        auditor.say("I10", f"vcpu {vcpu.id} runs on {auditor.page_name(sp)}, its registers ask for gfn {gfn:#x} {describe_role(asked)}")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def level_3(kvm: KvmPtr, sp: ShadowPagePtr) -> p_spte:
    """The level-3 table of a special root, or NULL if nothing has been linked so far down."""
    while role_level(sp.role) > 3:
        if not is_present(sp.spt[0]):
            return cython.NULL
        sp = to_shadow_page(kvm, sp.spt[0])
        if sp == cython.NULL:
            return cython.NULL
    return sp.spt


@cython.cfunc
def validate_top(auditor: Auditor, vcpu: KvmVcpuPtr, table: p_spte, asked: role_t) -> object:
    """I10: the level-2 pages of a guest whose top level the MMU keeps itself."""
    i: cython.int
    child: ShadowPagePtr
    mode: role_t = asked & ~cython.cast(role_t, Role.LEVEL | Role.INVALID) | 2
    for i in range(4):
        if not table[i] & Pte.PRESENT:
            continue
        child = to_shadow_page(auditor.kvm, table[i])
        role: role_t = mode | (cython.cast(role_t, i) << RoleShift.QUADRANT_SHIFT if mode & Role.HAS_4_BYTE_GPTE else 0)
        if child == cython.NULL or not child.live:
            continue  # I11
        if (child.role ^ role) & ~cython.cast(role_t, Role.INVALID) or not leads_to(vcpu, i, child.gfn, mode):
            name: object = auditor.page_name(child)
            auditor.say("I10", f"vcpu {vcpu.id}'s top entry {i} leads to {name}, its registers ask for {describe_role(role)}")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def leads_to(vcpu: KvmVcpuPtr, index: cython.int, gfn: gfn_t, mode: role_t) -> cython.bint:
    """A gigabyte without paging; the directory of a 2-level guest; of a PAE guest what the PDPTE register names.

    No register holds the PDPTEs of nested tables: memory may have others by now, and the next fault looks (H4).
    """
    if mode & Role.DIRECT:
        return gfn == cython.cast(gfn_t, index) << 18
    if mode & Role.HAS_4_BYTE_GPTE:
        return gfn == gfn_asked(vcpu)
    pdpte: u64 = vcpu.mmu.pdptrs[index]
    return walks_nested(vcpu) or (pdpte & Pte.PRESENT != 0 and gfn == (pdpte & Pte.ADDR) >> PAGE_SHIFT)
