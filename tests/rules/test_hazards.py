# SPDX-License-Identifier: GPL-2.0-only
"""The hazards H7 to H18 of the special-page series as it was posted: each test would fail with what it did.

H1, H2 and H4 need nesting: test_nested.py. H3, H5, H6, H10 and H17 stand with the requirements: test_requirements.py.
"""

from __future__ import annotations

import struct

import pytest
from designs import KERNEL, special_designs
from guest_tables import (
    ADDR,
    LONG,
    NXE,
    PAE_CR4,
    PG_WP,
    READ,
    WRITE,
    entries,
    pae_guest,
    page_of,
    put,
    special_pages,
    touch,
)
from poke import poke_host

from shadowmmu import ROOT_DESIGNS, HostFault, Outcome, OutOfPages, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.arena.role import Access, Role, RoleShift
from shadowmmu.x86.pferr import Pferr

SMEP = 0x100000
PDPTE_RESERVED = 0x2 | 0x4 | 0x20  # W, U and A, which a PDPTE does not have
NOWHERE = 0x7000000  # guest physical, in no memslot
NPF_WRITE = int(Pferr.USER | Pferr.WRITE | Pferr.GUEST_FINAL)


def nested_pae_guest(host_levels: int, roots: str) -> Vm:
    """A PAE L1 whose nested page table at 0x1000 maps L2's page 0, with L2 running: a chain of two or three special pages."""
    vm = Vm(memory_mib=8, roots=roots, tdp=True, host_levels=host_levels)
    put(vm, 0x1000, 0x2001)
    put(vm, 0x2000, 0x3007)
    put(vm, 0x3000, 0x100007)
    assert vm.vcpus[0].set_sregs(PG_WP, 0x8000, PAE_CR4, NXE)
    assert vm.vcpus[0].nested_vmrun(cr0=1, cr3=0, cr4=0, efer=0, ncr3=0x1000)
    vm.vcpus[0].enter()
    return vm


@special_designs
def test_h7_the_frame_of_pae_root_forgets_the_page_that_used_it(roots: str) -> None:
    """Posted: the frame's back pointer led to the freed header until the next root was made."""
    vm = pae_guest(roots)
    root = vm.vcpus[0].root
    assert root is not None and vm.shadow_page(root) is not None
    vm.vcpus[0].set_cr4(PAE_CR4 | SMEP)  # another role: the root is freed, none is loaded yet
    assert vm.vcpus[0].root is None
    assert vm.shadow_page(root) is None
    assert audit(vm) == []


@special_designs
@pytest.mark.parametrize("host_levels", [4, 5])
def test_h8_gfn_and_rights_of_every_special_page_are_0_and_all(host_levels: int, roots: str) -> None:
    """Posted: whatever the allocation left there, although a child that is linked already is recognised by them."""
    vm = nested_pae_guest(host_levels, roots)
    assert vm.vcpus[0].page_fault(0, NPF_WRITE) is Outcome.FIXED
    chain = special_pages(vm)
    assert sorted(page.level for page in chain) == list(range(3, host_levels + 1))
    for page in chain:
        assert page.gfn == 0
        assert (page.role & Role.ACCESS) >> RoleShift.ACCESS_SHIFT == Access.ALL
    made = vm.counters()["special_allocated"]
    put(vm, 0x3008, 0x101007)
    assert vm.vcpus[0].page_fault(0x1000, NPF_WRITE) is Outcome.FIXED
    assert vm.counters()["special_allocated"] == made  # found linked, as what they are


@special_designs
@pytest.mark.parametrize("order", [("pae", "long"), ("long", "pae")])
def test_h9_a_root_is_freed_as_what_it_is_when_the_role_has_changed_before(order: tuple[str, str], roots: str) -> None:
    """Posted: the MMU's role was asked, and whoever clears or changes it before the root is freed asks about another root."""
    vm = pae_guest(roots)
    put(vm, 0x9000, 0xA007)
    put(vm, 0xA000, 0x2007)
    registers = {"pae": (PG_WP, 0x1000, PAE_CR4, NXE), "long": (PG_WP, 0x9000, PAE_CR4, LONG)}
    for name in order * 2:
        assert vm.vcpus[0].set_sregs(*registers[name])
        assert touch(vm, 0x1000) in (Outcome.FIXED, Outcome.SPURIOUS)
        assert len(special_pages(vm)) == (name == "pae")
        assert audit(vm) == []
    counters = vm.counters()
    assert counters["special_allocated"] - counters["special_freed"] == (order[1] == "pae")


@special_designs
def test_h11_a_walk_for_mmio_finds_nothing_reserved_in_a_pdpte(roots: str) -> None:
    """Posted: PDPTEs were made like any other upper entry, with W, U and A. The walk for an MMIO mark looks at level 3 too."""
    vm = pae_guest(roots)
    for page in (8, 9):
        put(vm, 0x4000 + 8 * page, NOWHERE + 0x1000 * page | 0x67)
        assert touch(vm, 0x1000 * page, READ) is Outcome.EMULATE  # leaves a mark; the second takes the vCPU's MMIO cache
    (root,) = special_pages(vm)
    assert entries(vm, root)[0] & 1 and not any(entry & PDPTE_RESERVED for entry in entries(vm, root))
    assert vm.vcpus[0].page_fault(0x8000, int(Pferr.PRESENT | Pferr.RSVD)) is Outcome.EMULATE
    assert vm.bugs() == [] and audit(vm) == []
    poke_host(vm, root.hpa, entries(vm, root)[0] | 0x2)  # as posted
    with pytest.raises(HostFault):
        vm.vcpus[0].page_fault(0x9000, int(Pferr.PRESENT | Pferr.RSVD))


@pytest.mark.parametrize("first", ["pae", "long"])
def test_h12_level_2_pages_of_pae_and_long_mode_are_shared_in_every_design_alike(first: str) -> None:
    """Roles of the two coincide though bits 52-62 are reserved in one only. Linux has it too; special pages must not add to it."""
    seen = {}
    for roots in ROOT_DESIGNS:
        vm = pae_guest(roots, vcpus=2)
        put(vm, 0x9000, 0xA007)
        put(vm, 0xA000, 0x2007)  # long mode over the same directory
        put(vm, 0x4000 + 8 * 5, 0x105007 | 1 << 52)
        assert vm.vcpus[1].set_sregs(PG_WP, 0x9000, PAE_CR4, LONG)
        order = (0, 1) if first == "pae" else (1, 0)
        seen[roots] = [touch(vm, gva, READ, vcpu) for vcpu in (*order, *order) for gva in (0x1000, 0x5000)]
        assert len([page for page in vm.shadow_pages() if page.gfn == 2 and page.level == 2]) == 1
        assert audit(vm) == []
    assert all(outcomes == seen[KERNEL] for outcomes in seen.values())


@special_designs
def test_h13_the_four_directories_below_a_two_level_guest_differ_by_two_quadrant_bits(roots: str) -> None:
    """Posted with today's rule, one bit: gigabytes 0 and 2, and 1 and 3, would share a directory and reach the wrong pages."""
    vm = Vm(memory_mib=8, roots=roots)
    for gigabyte in range(4):
        table = 0x2000 + 0x1000 * gigabyte
        vm.write_guest(0x1000 + 4 * 0x100 * gigabyte, struct.pack("<I", table | 7))
        vm.write_guest(table + 4, struct.pack("<I", 0x100000 + 0x1000 * gigabyte | 7))
    assert vm.vcpus[0].set_sregs(PG_WP, 0x1000, 0, 0)
    for gigabyte in range(4):
        assert touch(vm, gigabyte << 30 | 0x1000) is Outcome.FIXED
    quadrants = {page.role >> RoleShift.QUADRANT_SHIFT & 3 for page in vm.shadow_pages() if page.level == 2}
    assert quadrants == {0, 1, 2, 3}
    for gigabyte in range(4):
        leaf = page_of(vm, 2 + gigabyte, 1)
        assert entries(vm, leaf)[1] & ADDR == vm.host_page(0x100000 + 0x1000 * gigabyte)
    assert audit(vm) == []


@special_designs
def test_h14_a_root_is_freed_by_its_own_vcpu_which_flushes_before_it_runs_again(roots: str) -> None:
    """Freeing flushes nothing, so nobody else may do it: a vCPU that is not running keeps its obsolete root until it enters."""
    vm = pae_guest(roots, vcpus=2)
    for vcpu in (0, 1):
        assert touch(vm, 0x1000, WRITE, vcpu) in (Outcome.FIXED, Outcome.SPURIOUS)
    mine, other = (vcpu.root for vcpu in vm.vcpus)
    vm.zap_all_fast()
    assert {page.hpa for page in special_pages(vm)} == {mine, other}
    assert vm.vcpus[0].enter().flush_all
    kept = {page.owner: page for page in special_pages(vm)}
    assert kept[1].hpa == other and kept[1].obsolete and not kept[0].obsolete
    assert vm.vcpus[1].enter().flush_all
    assert not any(page.obsolete for page in special_pages(vm))
    vm.vcpus[0].set_cr4(PAE_CR4 | SMEP)
    assert vm.vcpus[0].enter().flush_all


@special_designs
def test_h15_a_pdpte_cleared_by_another_vcpu_is_flushed_where_it_is_in_use(roots: str) -> None:
    """Posted: the entry was cleared in memory; hardware may have cached the PDPTE."""
    vm = pae_guest(roots, vcpus=2)
    for vcpu in (0, 1):
        assert touch(vm, 0x1000, WRITE, vcpu) in (Outcome.FIXED, Outcome.SPURIOUS)
        vm.vcpus[vcpu].enter()
    assert vm.unprotect_page(2)  # the directory below both roots goes
    assert all(entries(vm, root)[0] == 0 for root in special_pages(vm))
    assert vm.vcpus[0].enter().flush_all and vm.vcpus[1].enter().flush_all


@special_designs
@pytest.mark.parametrize("host_levels", [4, 5])
def test_h16_a_chain_that_ends_early_is_freed_to_where_it_ends(host_levels: int, roots: str) -> None:
    """A nested root on which nothing was mapped yet has no level-3 page. Posted: the level-3 table was freed regardless."""
    vm = nested_pae_guest(host_levels, roots)
    (root,) = special_pages(vm)
    assert root.level == host_levels
    assert vm.vcpus[0].nested_vmexit()
    assert vm.vcpus[0].nested_vmrun(cr0=1, cr3=0, cr4=0, efer=0, ncr3=0x5000)
    vm.vcpus[0].enter()
    assert vm.vcpus[0].nested_vmexit()
    counters = vm.counters()
    assert counters["special_allocated"] == 2 and counters["special_freed"] == 1
    assert vm.bugs() == [] and audit(vm) == []


@special_designs
def test_h18_no_special_page_is_left_when_no_page_can_be_made_available(roots: str) -> None:
    vm = pae_guest(roots, vcpus=17)
    for number, vcpu in enumerate(vm.vcpus[:16]):
        assert vcpu.set_sregs(PG_WP, 0x40000 + 0x4000 * number, PAE_CR4, LONG)
        for cr3 in range(4):  # one in use and three kept: 64 roots, none of which can be recycled
            assert vcpu.set_cr3(0x40000 + 0x4000 * number + 0x1000 * cr3)
            vcpu.enter()
    assert vm.vcpus[16].set_sregs(PG_WP, 0x1000, PAE_CR4 | SMEP, NXE)
    assert not special_pages(vm) and vm.counters()["n_used_mmu_pages"] == 64
    vm.set_shadow_pages(64)
    made = vm.counters()["special_allocated"]
    with pytest.raises(OutOfPages):
        vm.vcpus[16].enter()
    assert vm.vcpus[16].root is None and vm.counters()["special_allocated"] == made
    vm.set_shadow_pages(100)
    vm.vcpus[16].enter()
    assert len(special_pages(vm)) == 1
    assert audit(vm) == []
