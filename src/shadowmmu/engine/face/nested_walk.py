# SPDX-License-Identifier: GPL-2.0-only
"""A look at the way of an L2 physical address: through L1's NPT or EPT, then through the memslots. Changes nothing."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Ext
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, GuestFormat, KvmMmuPtr, KvmVcpuPtr, MemSlotPtr, gpa_t, u64
from cython.cimports.shadowmmu.engine.guest.mmu import get_pdptr, guest_level
from cython.cimports.shadowmmu.engine.guest.walker import entry_size, gpte_gfn, gpte_present, read_gpte
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot
from cython.cimports.shadowmmu.x86.control import Cr3
from cython.cimports.shadowmmu.x86.pte import Pte, PteShift

from shadowmmu.engine.face.types import NestedWalk, WalkStep


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_leaf(mmu: KvmMmuPtr, level: cython.int, entry: u64) -> cython.bint:
    if level == 1:
        return True
    if not entry & Pte.PAGE_SIZE:
        return False
    if mmu.format == GuestFormat.FORMAT_PT32:
        return (mmu.cpu_ext & Ext.CR4_PSE) != 0
    return level <= 3


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def landing(mmu: KvmMmuPtr, entry: u64, shift: cython.int, gpa: gpa_t) -> u64:
    """L1 physical address that a leaf of 2**shift bytes maps `gpa` to."""
    page: u64 = gpte_gfn(mmu.format, entry) << PAGE_SHIFT
    if mmu.format == GuestFormat.FORMAT_PT32 and shift > PAGE_SHIFT:
        page += (entry & Pte.PSE36_MASK) << PteShift.PSE36
    inside: u64 = (cython.cast(u64, 1) << shift) - 1
    return (page & ~inside) | (gpa & inside)


@cython.cfunc
def hva_of(vcpu: KvmVcpuPtr, gpa: gpa_t) -> object:
    slot: MemSlotPtr = gfn_to_memslot(vcpu.kvm, vcpu.smm, gpa >> PAGE_SHIFT)
    return None if slot == cython.NULL else ((slot.hva - slot.base_gfn) << PAGE_SHIFT) + gpa


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def note(path: NestedPathPtr, level: cython.int, at: u64, entry: u64, known: cython.bint) -> cython.void:
    step: NestedStepPtr = cython.address(path.step[path.steps])
    step.level, step.at, step.entry, step.known = level, at, entry, known
    path.steps += 1


def follow_nested(vcpu: KvmVcpuPtr, gpa: gpa_t, path: NestedPathPtr) -> cython.void:
    """The vCPU must be in guest mode with nested paging."""
    mmu: KvmMmuPtr = cython.address(vcpu.guest_mmu)
    bits: cython.int = 10 if mmu.format == GuestFormat.FORMAT_PT32 else 9
    level: cython.int = guest_level(mmu)
    table: u64 = vcpu.nested.ncr3
    entry: u64 = 0
    path.steps, path.leads, path.gpa = 0, False, 0
    if level <= 3 and gpa >> 32:
        return
    if level == 3:
        table = get_pdptr(vcpu, mmu, gpa >> 30)
        note(path, 3, (vcpu.nested.ncr3 & Cr3.PAE_TABLE_MASK) + 8 * (gpa >> 30), table, True)
        if not table & Pte.PRESENT:
            return
        level = 2
    while True:
        shift: cython.int = PAGE_SHIFT + bits * (level - 1)
        index: u64 = (gpa >> shift) & ((1 << bits) - 1)
        at: u64 = (gpte_gfn(mmu.format, table) << PAGE_SHIFT) + index * entry_size(mmu.format)
        known: cython.bint = read_gpte(vcpu, mmu.format, at, cython.address(entry))
        note(path, level, at, entry, known)
        if not known or not gpte_present(mmu.format, entry):
            return
        if is_leaf(mmu, level, entry):
            break
        table = entry
        level -= 1
    path.leads, path.gpa = True, landing(mmu, entry, shift, gpa)


@cython.cfunc
def walk_nested(vcpu: KvmVcpuPtr, gpa: gpa_t) -> object:
    """A `NestedWalk`."""
    path: NestedPath
    i: cython.int
    follow_nested(vcpu, gpa, cython.address(path))
    steps: list = []
    for i in range(path.steps):
        entry: object = path.step[i].entry if path.step[i].known else None
        steps.append(WalkStep(path.step[i].level, path.step[i].at, entry))
    if not path.leads:
        return NestedWalk(tuple(steps), None, None)
    return NestedWalk(tuple(steps), path.gpa, hva_of(vcpu, path.gpa))
