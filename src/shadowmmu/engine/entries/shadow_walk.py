"""The walk of the shadow tables, from the root down (kvm_shadow_walk_iterator).

Its steps, `walk_init`, `walk_okay` and `walk_next`, are inline in the .pxd: they run several times in each fault.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr, p_spte, to_shadow_page, u64


def legacy_walk_start(vcpu: KvmVcpuPtr, addr: u64, level: cython.p_int, table: cython.pointer(p_spte)) -> cython.void:
    """Begin below the bare tables: at the level-2 page of the address's gigabyte; no such page ends the walk."""
    link: u64 = vcpu.mmu.pae_root[(addr >> 30) & 3]
    if not link:
        level[0] = 0
        return
    table[0] = to_shadow_page(vcpu.kvm, link).spt
    level[0] = 2
