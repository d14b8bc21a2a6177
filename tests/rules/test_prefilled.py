# SPDX-License-Identifier: GPL-2.0-only
"""The requirements P1 to P5 of prefilled roots: which level-2 pages a load links, and that it does nothing else."""

from __future__ import annotations

import pytest
from guest_tables import ADDR, GUESTS, NXE, PAE_CR4, PG_WP, entries, pae_guest, page_of, put, special_pages, touch
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu import Outcome, ShadowPageView, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.arena.events import Event
from shadowmmu.x86.pferr import Pferr

SMEP = 1 << 20
NPF = int(Pferr.USER | Pferr.WRITE | Pferr.GUEST_FINAL)
NOWHERE = 0x7000_0000
"""In no memslot."""
COUNTED = ("n_used_mmu_pages", "mmu_cache_miss", "indirect_shadow_pages", "mmu_shadow_zapped", "mmu_recycled", "pf_taken")


def load_anew(vm: Vm) -> ShadowPageView:
    """The root is dropped, with the paging mode as it was, and loaded again: its level-3 page."""
    vcpu = vm.vcpus[0]
    assert vcpu.set_cr4(vcpu.cr4 ^ SMEP) and vcpu.set_cr4(vcpu.cr4 ^ SMEP)
    assert vcpu.root is None
    vcpu.enter()
    return next(page for page in special_pages(vm) if page.level == 3)


def linked(vm: Vm, root: ShadowPageView) -> dict[int, int]:
    """Index -> gfn of the page below."""
    pages = {page.hpa: page.gfn for page in vm.shadow_pages()}
    return {index: pages[entry & ADDR] for index, entry in enumerate(entries(vm, root)) if entry}


@pytest.mark.parametrize("name", list(GUESTS))
def test_p1_what_is_there_is_linked_as_a_fault_links_it(name: str) -> None:
    vm = GUESTS[name]("prefilled")
    touch(vm, 0x1000)
    touch(vm, 0x4000_1000)
    (before,) = special_pages(vm)
    by_faults = entries(vm, before)
    assert sum(map(bool, by_faults)) == 2
    after = load_anew(vm)
    assert entries(vm, after) == by_faults
    assert audit(vm) == [] and vm.bugs() == []


@pytest.mark.parametrize("mode", [(PAE_CR4, NXE), (0, 0)], ids=["pae", "2-level"])
@pytest.mark.parametrize("host_levels", [3, 4, 5])
def test_p1_p4_below_nested_tables_with_the_chain_above(host_levels: int, mode: tuple[int, int]) -> None:
    """P4: special pages of levels 4 and 3 are made at the load if there is something to link, and only then."""
    vm = Vm(memory_mib=8, roots="prefilled", tdp=True, host_levels=host_levels)
    vcpu = vm.vcpus[0]
    if mode[0]:
        put(vm, 0x1000, 0x2001)
        put(vm, 0x2000, 0x3007)
        put(vm, 0x3008, 0x10_0007)
    else:
        put(vm, 0x1000, 0x3007)
        put(vm, 0x3000, 0x10_0007 << 32)
    assert vcpu.set_sregs(PG_WP, 0x8000, *mode)
    levels = []
    for _ in range(2):
        assert vcpu.nested_vmrun(1, 0, 0, 0, ncr3=0x1000)
        vcpu.enter()
        levels.append(sorted(page.level for page in special_pages(vm) if page.role >> 17 & 1))
        if len(levels) == 1:
            assert vcpu.page_fault(0x1000, NPF) is Outcome.FIXED
            assert vcpu.nested_vmexit()
    assert levels == [[host_levels], list(range(3, host_levels + 1))]
    root = next(page for page in special_pages(vm) if page.level == 3 and page.role >> 17 & 1)
    assert linked(vm, root) == {0: 2 if mode[0] else 1}
    assert audit(vm) == [] and vm.bugs() == []


def test_p2_nothing_is_made_protected_or_counted() -> None:
    """One page is looked up, the others are left to faults; a look-up forgives the writes counted so far, as any does."""
    vm = pae_guest("prefilled")
    touch(vm, 0x1000)
    before = {name: vm.counters()[name] for name in COUNTED}
    pages = [page.hpa for page in vm.shadow_pages() if not page.special]
    vm.start_trace()
    load_anew(vm)
    told = [record for record in vm.records() if record.kind == Event.KVM_MMU_GET_PAGE]
    assert [(record.fields[0], record.fields[2] >> 9 & 1) for record in told] == [(2, 0)]  # the page of gfn 2, not created
    assert {name: vm.counters()[name] for name in COUNTED} == before
    assert [page.hpa for page in vm.shadow_pages() if not page.special] == pages


def test_p2_a_first_load_finds_nothing() -> None:
    vm = pae_guest("prefilled")
    assert not any(entries(vm, special_pages(vm)[0]))


def test_p2_an_obsolete_page_is_not_linked() -> None:
    vm = pae_guest("prefilled", vcpus=2)
    touch(vm, 0x1000, vcpu=1)
    vm.zap_all_fast()
    assert linked(vm, load_anew(vm)) == {}
    assert audit(vm) == []


def test_p3_it_is_synced_before_it_is_linked() -> None:
    """The guest changes a table that is unsync, and loads CR3: what is linked says what the table says."""
    vm = pae_guest("prefilled")
    touch(vm, 0x1000)
    assert touch(vm, 0x20000) == Outcome.FIXED  # the table goes unsync
    put(vm, 0x4000 + 8, 0x10F007)
    root = load_anew(vm)
    assert linked(vm, root) == {0: 2} and not page_of(vm, 4, 1).unsync and root.unsync_children == 0
    table = page_of(vm, 4, 1).hpa
    assert vm.read_host_u64(table + 8) in (vm.nothing_in(table), vm.host_page(0x10F000))
    assert audit(vm) == [] and vm.bugs() == []


def test_p3_another_vcpu_marks_it_unsync_through_a_prefilled_entry() -> None:
    vm = pae_guest("prefilled", vcpus=2)
    touch(vm, 0x1000, vcpu=1)
    root = load_anew(vm)
    assert touch(vm, 0x20000, vcpu=1) == Outcome.FIXED
    assert [page.unsync_children for page in special_pages(vm)] == [1, 1] and linked(vm, root) == {0: 2}
    vm.unprotect_page(2)
    assert linked(vm, root) == {} and vm.vcpus[0].enter().flush_all
    assert audit(vm) == []


def test_p5_a_pdpte_that_l1_changes_after_the_load_is_noticed() -> None:
    """H4 holds for entries that the load has linked, too."""
    vm = Vm(memory_mib=8, roots="prefilled", tdp=True)
    vcpu = vm.vcpus[0]
    for pdpte, table, page in ((0x2001, 0x3007, 0x10_0007), (0x4001, 0x5007, 0x20_0007)):
        put(vm, 0x1000, pdpte)
        put(vm, pdpte & ~1, table)
        put(vm, (table & ~7) + 8, page)
    assert vcpu.set_sregs(PG_WP, 0x8000, PAE_CR4, NXE)
    for _ in range(2):
        assert vcpu.nested_vmrun(1, 0, 0, 0, ncr3=0x1000)
        assert touch(vm, 0x1000, NPF) in (Outcome.FIXED, Outcome.SPURIOUS)
        assert vcpu.nested_vmexit()
    assert vcpu.nested_vmrun(1, 0, 0, 0, ncr3=0x1000)
    vcpu.enter()
    put(vm, 0x1000, 0x2001)
    assert touch(vm, 0x2000, NPF) is Outcome.INJECT  # its table has nothing there
    assert touch(vm, 0x1000, NPF) is Outcome.FIXED
    root = next(page for page in special_pages(vm) if page.level == 3)
    assert linked(vm, root) == {0: 2}
    assert audit(vm) == [] and vm.bugs() == []


PDPTES = st.lists(st.sampled_from((0, 0x2001, 0x3001, 0x4001, NOWHERE | 1, 0x2000)), min_size=4, max_size=4)


@settings(max_examples=60)
@given(first=PDPTES, then=PDPTES, touched=st.sets(st.integers(0, 3)), zapped=st.sets(st.sampled_from((2, 3, 4))))
def test_p1_p2_p5_any_pdptes(first: list[int], then: list[int], touched: set[int], zapped: set[int]) -> None:
    """Each present PDPTE whose page is in the hash is linked, and no other; what leads outside memory is a fault when used."""
    vm = pae_guest("prefilled")
    put(vm, 0x4000, 0x4007)  # the third directory
    for pdptes in (first, then):
        for index, pdpte in enumerate(pdptes):
            put(vm, 0x1000 + 8 * index, pdpte)
        assert vm.vcpus[0].set_cr3(0x1000)
        vm.vcpus[0].enter()
        if pdptes is first:
            for index in touched:
                touch(vm, index << 30 | 0x1000)
            for gfn in zapped:
                vm.unprotect_page(gfn)
            there = {page.gfn for page in vm.shadow_pages() if page.level == 2}
    root = load_anew(vm)
    pages = {page.gfn for page in vm.shadow_pages() if page.level == 2}
    assert linked(vm, root) == {i: pdpte >> 12 for i, pdpte in enumerate(then) if pdpte & 1 and pdpte >> 12 in there}
    assert pages == there
    for index, pdpte in enumerate(then):
        good = pdpte & 1 and pdpte != NOWHERE | 1
        assert (touch(vm, index << 30 | 0x1000) == Outcome.INJECT) == (not good)
    assert audit(vm) == [] and vm.bugs() == []
