# SPDX-License-Identifier: GPL-2.0-only
"""The requirements R1 to R16 of special shadow pages, and hazards of the posted design that show without nesting."""

from __future__ import annotations

import pytest
from designs import KERNEL, every_design, special_designs
from guest_tables import (
    ADDR,
    GUESTS,
    LONG,
    NXE,
    PAE_CR4,
    PG_WP,
    READ,
    WRITE,
    entries,
    nonpaging_guest,
    pae_guest,
    page_of,
    put,
    special_pages,
    touch,
    two_level_guest,
)
from poke import poke_host

from shadowmmu import ROOT_DESIGNS, Outcome, TripleFault, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.arena.events import Event
from shadowmmu.engine.memory.guest_memory import InterleavePoint

COUNTED = ("n_used_mmu_pages", "mmu_cache_miss", "indirect_shadow_pages", "mmu_shadow_zapped", "mmu_recycled")


@special_designs
@pytest.mark.parametrize("name", list(GUESTS))
def test_r1_a_special_page_holds_the_pdptes_of_a_guest_without_four_levels(name: str, roots: str) -> None:
    vm = GUESTS[name](roots)
    (page,) = special_pages(vm)
    assert page.level == 3 and page.hpa == vm.vcpus[0].root


@pytest.mark.parametrize("cr4", [PAE_CR4, PAE_CR4 | 0x1000])
def test_r1_a_long_mode_guest_has_none(cr4: int) -> None:
    vm = Vm(memory_mib=8)
    assert vm.vcpus[0].set_sregs(PG_WP, 0x1000, cr4, LONG | NXE)
    vm.vcpus[0].enter()
    assert not special_pages(vm) and vm.counters()["special_allocated"] == 0


@special_designs
def test_r2_its_table_is_pae_root_and_the_same_one_each_time(roots: str) -> None:
    vm = pae_guest(roots)
    first = vm.vcpus[0].root
    assert first is not None and 0 < first < 1 << 32
    vm.vcpus[0].set_cr4(PAE_CR4 | 0x100000)  # SMEP: another role, another root
    vm.vcpus[0].enter()
    assert vm.vcpus[0].root == first
    assert all(page.hpa >= 1 << 32 for page in vm.shadow_pages() if not page.special)


@special_designs
@pytest.mark.parametrize(("name", "role"), [("pae", 0x3703), ("2-level", 0x3713), ("nonpaging", 0x1783)])
def test_r3_gfn_role_and_owner(name: str, role: int, roots: str) -> None:
    vm = GUESTS[name](roots)
    (page,) = special_pages(vm)
    assert (page.gfn, page.role, page.owner, page.obsolete) == (0, role, 0, False)
    assert vm.shadow_page(page.hpa + 8) == page


@special_designs
def test_r4_no_other_vcpu_finds_it(roots: str) -> None:
    vm = pae_guest(roots, vcpus=2)
    one, other = special_pages(vm)
    assert {one.owner, other.owner} == {0, 1} and one.hpa != other.hpa
    assert vm.vcpus[0].root != vm.vcpus[1].root


@special_designs
def test_r4_no_zap_finds_it(roots: str) -> None:
    """Neither a zap of the oldest nor one of everything traces or frees a level-3 page."""
    vm = pae_guest(roots, shadow_pages=64)
    touch(vm, 0x1000)
    vm.start_trace()
    vm.zap_all_fast()
    zapped = [record for record in vm.records() if record.kind == Event.KVM_MMU_PREPARE_ZAP_PAGE]
    assert zapped and all(record.fields[1] & 0xF < 3 for record in zapped)
    assert len(special_pages(vm)) == 1


@special_designs
def test_r5_another_vcpu_unlinks_its_entries_and_marks_them_unsync(roots: str) -> None:
    vm = pae_guest(roots, vcpus=2)
    for vcpu in (0, 1):
        assert touch(vm, 0x1000, WRITE, vcpu) == Outcome.FIXED or vcpu
    assert touch(vm, 0x20000, WRITE, 0) == Outcome.FIXED  # vCPU 0 makes the table writable: it goes unsync
    assert page_of(vm, 4, 1).unsync
    assert [page.unsync_children for page in special_pages(vm)] == [1, 1]
    assert len(page_of(vm, 2, 2).parents) == 2
    vm.unprotect_page(2)
    assert all(not any(entries(vm, page)) for page in special_pages(vm))
    assert vm.vcpus[1].enter().flush_all
    assert audit(vm) == []


@special_designs
@pytest.mark.parametrize("name", list(GUESTS))
def test_r6_it_is_not_accounted(name: str, roots: str) -> None:
    vm = GUESTS[name](roots)
    counters = vm.counters()
    assert counters["special_allocated"] == 1
    assert [counters[key] for key in COUNTED] == [0] * len(COUNTED)
    vm.vcpus[0].set_sregs(PG_WP, 0x1000, PAE_CR4, LONG | NXE)
    assert vm.counters()["special_freed"] == 1
    assert [vm.counters()[key] for key in COUNTED] == [0] * len(COUNTED)


@special_designs
def test_r7_the_page_of_the_pdptes_stays_writable(roots: str) -> None:
    vm = pae_guest(roots)
    put(vm, 0x4000 + 8 * 34, 0x1007)  # map the PDPT at 0x22000
    assert touch(vm, 0x1000) == Outcome.FIXED
    assert touch(vm, 0x22000) == Outcome.FIXED
    (sptep,) = vm.rmap(0x1000)
    assert vm.read_host_u64(sptep) & 2


@special_designs
def test_r8_it_is_freed_with_its_root_and_at_once(roots: str) -> None:
    vm = pae_guest(roots)
    touch(vm, 0x1000)
    vm.start_trace()
    assert vm.vcpus[0].set_cr3(0x1000)  # the same PDPTEs: the root stays
    assert len(special_pages(vm)) == 1 and vm.counters()["special_freed"] == 0
    put(vm, 0x1008, 0x2001)
    assert vm.vcpus[0].set_cr3(0x1000)  # others: it goes
    kinds = [record.kind for record in vm.records()]
    assert not special_pages(vm)
    assert Event.SPECIAL_FREE in kinds and Event.KVM_MMU_PREPARE_ZAP_PAGE not in kinds


@special_designs
def test_r9_it_is_never_kept_for_later(roots: str) -> None:
    vm = pae_guest(roots)
    for root in range(5):
        put(vm, 0x5000 + 0x20 * root, 0x2001)
    for _ in range(2):
        for root in range(5):
            assert vm.vcpus[0].set_cr3(0x5000 + 0x20 * root)
            vm.vcpus[0].enter()
            assert vm.vcpus[0].prev_roots == () and len(special_pages(vm)) == 1
            assert audit(vm) == []


@special_designs
def test_r10_it_is_linked_marked_and_synced_like_any_page(roots: str) -> None:
    vm = pae_guest(roots)
    touch(vm, 0x1000)
    (root,) = special_pages(vm)
    child = page_of(vm, 2, 2)
    assert entries(vm, root)[0] == child.hpa | 0x801 and child.parents == (root.hpa,)
    assert touch(vm, 0x20000) == Outcome.FIXED  # the table goes unsync
    assert special_pages(vm)[0].unsync_children == 1
    put(vm, 0x4000 + 8, 0x10F007)  # the guest remaps 0x1000, and flushes
    assert vm.vcpus[0].set_cr3(0x1000)
    vm.vcpus[0].enter()
    assert special_pages(vm)[0].unsync_children == 0 and not page_of(vm, 4, 1).unsync
    assert vm.read_host_u64(page_of(vm, 4, 1).hpa + 8) == 0 or touch(vm, 0x1000) == Outcome.FIXED


@special_designs
@pytest.mark.parametrize("runs", [1, 2, 3, 4])
def test_r11_r12_obsolete_and_right_again(runs: int, roots: str) -> None:
    """A vCPU that sleeps through an even number of zaps keeps its page, empty; through an odd number it makes another."""
    vm = pae_guest(roots)
    touch(vm, 0x1000)
    for run in range(runs):
        vm.zap_all_fast()
        (page,) = special_pages(vm)
        assert page.obsolete == (run % 2 == 0)
        assert not any(entries(vm, page))
    freed = vm.counters()["special_freed"]
    entry = vm.vcpus[0].enter()
    assert vm.counters()["special_freed"] - freed == runs % 2
    assert entry.flush_all
    assert not special_pages(vm)[0].obsolete
    assert touch(vm, 0x1000) in (Outcome.FIXED, Outcome.SPURIOUS)
    assert audit(vm) == []


@special_designs
def test_r12_a_vcpu_that_runs_between_two_zaps_sees_it_obsolete(roots: str) -> None:
    vm = pae_guest(roots)
    for _ in range(2):
        touch(vm, 0x1000)
        vm.zap_all_fast()
        vm.vcpus[0].enter()
    assert vm.counters()["special_freed"] == 2


@special_designs
def test_r13_getting_one_leaves_no_trace_of_a_page(roots: str) -> None:
    vm = Vm(memory_mib=8, roots=roots)
    put(vm, 0x1000, 0x2001)
    vm.vcpus[0].set_sregs(PG_WP, 0x1000, PAE_CR4, NXE)
    vm.start_trace()
    vm.vcpus[0].enter()
    kinds = [record.kind for record in vm.records()]
    assert Event.SPECIAL_ALLOC in kinds and Event.KVM_MMU_GET_PAGE not in kinds


@special_designs
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("filled", [False, True])
def test_r14_r16_a_chain_is_freed_from_the_top_and_its_children_survive(levels: int, filled: bool, roots: str) -> None:
    """R14 with H16: without a fault the chain has no level-3 page yet, and freeing stops there."""
    vm = Vm(memory_mib=8, roots=roots, tdp=True, host_levels=levels)
    put(vm, 0x1000, 0x2001)
    put(vm, 0x2000, 0x3007)
    put(vm, 0x3000 + 8, 0x100007)
    vcpu = vm.vcpus[0]
    assert vcpu.set_sregs(PG_WP, 0, PAE_CR4, NXE)
    assert vcpu.nested_vmrun(1, 0, 0, 0, ncr3=0x1000)
    vcpu.enter()
    if filled:
        assert vcpu.page_fault(0x1000, 6) == Outcome.FIXED
    assert sorted(page.level for page in special_pages(vm)) == (list(range(3, levels + 1)) if filled else [levels])
    vm.start_trace()
    assert vcpu.nested_vmexit() and vcpu.set_cr4(PAE_CR4 | 0x100000)
    freed = [record.fields[0] & 0xF for record in vm.records() if record.kind == Event.SPECIAL_FREE]
    assert freed == (list(range(levels, 2, -1)) if filled else [levels])
    assert not special_pages(vm)
    if filled:
        assert page_of(vm, 2, 2).parents == ()
    assert audit(vm) == []


@special_designs
def test_r15_no_child_is_zapped_with_it(roots: str) -> None:
    vm = pae_guest(roots)
    touch(vm, 0x1000)
    touch(vm, 0x40001000)
    vm.start_trace()
    vm.vcpus[0].set_cr4(PAE_CR4 | 0x100000)
    assert Event.KVM_MMU_PREPARE_ZAP_PAGE not in [record.kind for record in vm.records()]
    assert page_of(vm, 2, 2).parents == () and page_of(vm, 3, 2).parents == ()


@pytest.mark.parametrize("name", list(GUESTS))
def test_r16_legacy_roots_have_no_special_page(name: str) -> None:
    vm = GUESTS[name](KERNEL)
    touch(vm, 0x1000)
    assert not special_pages(vm) and vm.counters()["special_allocated"] == 0
    root = vm.vcpus[0].root
    assert root is not None and vm.shadow_page(root) is None


# --- hazards


@special_designs
def test_h3_a_store_between_the_walk_and_the_write_protection_is_seen(roots: str) -> None:
    """H3: below a special root the directory is protected only inside the fault. Another CPU's store until then counts."""
    vm = pae_guest(roots)
    put(vm, 0x6000 + 8, 0x10F007)
    vm.arm_interleave(int(InterleavePoint.BEFORE_GET_PAGE), 0x2000, 0x6007, 8)  # the directory gets another table
    assert vm.vcpus[0].page_fault(0x1000, READ) == Outcome.RETRY
    assert vm.vcpus[0].page_fault(0x1000, READ) == Outcome.FIXED
    leaf = page_of(vm, 6, 1)
    assert vm.read_host_u64(leaf.hpa + 8) & ADDR == vm.host_page(0x10F000)
    assert audit(vm) == []


@special_designs
def test_h5_pae_root_is_empty_when_it_is_used_again(roots: str) -> None:
    vm = pae_guest(roots)
    touch(vm, 0x1000)
    root = vm.vcpus[0].root
    assert root is not None
    vm.vcpus[0].set_cr4(PAE_CR4 | 0x100000)
    poke_host(vm, root + 16, (1 << 64) - 1)  # whatever is left there between two uses
    vm.vcpus[0].enter()
    assert not any(entries(vm, special_pages(vm)[0])[1:])


@special_designs
def test_h6_levels_above_a_two_level_guest_take_nothing_from_the_walk(roots: str) -> None:
    vm = two_level_guest(roots)
    for gigabyte in range(4):
        assert touch(vm, gigabyte << 30 | 0x1000) in (Outcome.FIXED, Outcome.SPURIOUS)  # one table below all four
    (root,) = special_pages(vm)
    directories = [page for page in vm.shadow_pages() if page.level == 2]
    assert {page.gfn for page in directories} == {1}
    assert sorted(page.role >> 5 & 3 for page in directories) == [0, 1, 2, 3]  # H13: the quadrant is the PDPTE's index
    by_hpa = {page.hpa: page.role >> 5 & 3 for page in directories}
    assert [by_hpa[entry & ADDR] for entry in entries(vm, root)[:4]] == [0, 1, 2, 3]
    assert audit(vm) == []


@special_designs
def test_h10_a_huge_page_stays_below_a_three_level_root(roots: str) -> None:
    vm = Vm(memory_mib=0, roots=roots, user_mib=2048, host_levels=3, tdp=True)
    vm.set_memslot(0, 0, 2 << 30)
    vm.set_host_page_level(0, 2 << 30, 3)
    vm.vcpus[0].set_sregs(1, 0, 0, 0)
    assert touch(vm, 0x40001000) == Outcome.FIXED
    (root,) = special_pages(vm)
    assert not any(entry & 0x80 for entry in entries(vm, root))
    assert vm.counters()["pages_2m"] == 1 and vm.counters()["pages_1g"] == 0


@special_designs
def test_h17_a_root_outside_memory_leaves_none_and_can_be_tried_again(roots: str) -> None:
    vm = pae_guest(roots, kernel="6.1")
    vm.vcpus[0].set_sregs(PG_WP, 0x7F000000, 0, 0)
    with pytest.raises(TripleFault, match="CR3 0x7f000000"):
        vm.vcpus[0].enter()
    assert vm.vcpus[0].root is None and not special_pages(vm)
    vm.vcpus[0].set_sregs(PG_WP, 0x1000, PAE_CR4, NXE)
    assert touch(vm, 0x1000) == Outcome.FIXED


@every_design
@pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])
def test_a_pdpte_outside_memory_is_a_fault_or_a_triple_fault(kernel: str, roots: str) -> None:
    """Difference (c): with special pages it is found out when the PDPTE is used, with bare tables in Linux 6.1 at load."""
    vm = pae_guest(roots, kernel=kernel)
    put(vm, 0x1010, 0x7F000001)
    assert vm.vcpus[0].set_cr3(0x1000)
    if ROOT_DESIGNS[roots].bare and kernel == "6.1":
        with pytest.raises(TripleFault):
            vm.vcpus[0].enter()
    else:
        assert touch(vm, 0x1000) == Outcome.FIXED
        assert touch(vm, 0x80001000) == Outcome.INJECT


@special_designs
def test_r7_the_registers_count_not_the_memory_they_came_from(roots: str) -> None:
    """A PDPTE changed in memory means nothing until CR3 is loaded."""
    vm = pae_guest(roots)
    put(vm, 0x1000, 0)
    assert touch(vm, 0x1000) == Outcome.FIXED
    assert vm.vcpus[0].set_cr3(0x1000)
    assert touch(vm, 0x1000) == Outcome.INJECT


@special_designs
def test_nonpaging_children_are_direct_and_made_on_demand(roots: str) -> None:
    vm = nonpaging_guest(roots)
    assert [page.level for page in vm.shadow_pages()] == [3]
    assert touch(vm, 0x1000) == Outcome.FIXED
    assert sorted((page.level, page.direct) for page in vm.shadow_pages()) == [(1, True), (2, True), (3, True)]
