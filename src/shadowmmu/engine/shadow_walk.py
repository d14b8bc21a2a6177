"""The walk of the shadow tables, from the root down."""

import cython
from cython.cimports.shadowmmu.engine.legacy_roots import legacy_walk_start
from cython.cimports.shadowmmu.engine.role import role_level
from cython.cimports.shadowmmu.engine.spte import is_last, is_present
from cython.cimports.shadowmmu.engine.state import KvmVcpu, ShadowPage, hpa_t, spte_t, to_shadow_page, u64


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_init(it: cython.pointer(ShadowWalk), vcpu: cython.pointer(KvmVcpu), root: hpa_t, addr: u64) -> cython.void:
    """Begin at `root`, a root of the MMU in use; bare legacy tables are skipped, they have no shadow page."""
    it.kvm = vcpu.kvm
    it.addr = addr
    sp: cython.pointer(ShadowPage) = to_shadow_page(vcpu.kvm, root)
    if sp == cython.NULL:
        it.special = False
        legacy_walk_start(vcpu, addr, cython.address(it.level), cython.address(it.table))
        return
    it.level = role_level(sp.role)
    it.special = sp.special
    it.table = sp.spt


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_next(it: cython.pointer(ShadowWalk)) -> cython.void:
    """Descend; a leaf or an absent entry ends the walk."""
    spte: spte_t = it.sptep[0]
    if not is_present(spte) or is_last(spte, it.level):
        it.level = 0
        return
    it.table = to_shadow_page(it.kvm, spte).spt
    it.level -= 1
