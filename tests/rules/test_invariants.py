# SPDX-License-Identifier: GPL-2.0-only
"""Each invariant is broken on purpose, in a copy of the state, and the audit must name exactly it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from guest_tables import LONG, PAE_CR4, PG_WP, READ, USER, WRITE, entries, pae_guest, page_of, put, special_pages, touch
from poke import in_process, poke_arena, poke_host

from shadowmmu import Outcome, ShadowPageView, Vm
from shadowmmu.check.audit import audit

# Offsets in struct ShadowPage (engine/state.pxd), bytes.
SPT, GFN, PARENT_PTES, ROLE, ROOT_COUNT, UNSYNC_CHILDREN, VALID_GEN, UNSYNC, LIVE = 48, 64, 72, 96, 100, 104, 116, 117, 119
INVALID = 0x800


def guest() -> Vm:
    """A guest with a shared table, mapped in itself, all in sync."""
    vm = pae_guest()
    for gva in (0x1000, 0x2000, 0x40003000):
        assert touch(vm, gva) in (Outcome.FIXED, Outcome.SPURIOUS)
    assert touch(vm, 0x21000) == Outcome.EMULATE  # the directory is shadowed: a store to it is emulated
    assert audit(vm) == []
    return vm


def unsync_guest() -> Vm:
    """The guest with its table open for stores: unsync."""
    vm = guest()
    assert touch(vm, 0x20000) in (Outcome.FIXED, Outcome.SPURIOUS)
    assert page_of(vm, 4, 1).unsync
    return vm


def header(vm: Vm, page: ShadowPageView) -> int:
    """Where the page's header lies in the saved state."""
    state, at = vm.save(), -1
    while True:
        at = state.index(struct.pack("<Q", in_process(vm, page.hpa)), at + 1)
        start = at - SPT
        if struct.unpack_from("<Q", state, start + GFN)[0] == page.gfn and struct.unpack_from("<I", state, start + ROLE)[0] == page.role:
            return start


def poke(vm: Vm, page: ShadowPageView, offset: int, form: str, change: Callable[[int], int]) -> None:
    """Change one field of a page's header behind the engine's back."""
    at = header(vm, page) + offset
    poke_arena(vm, at, struct.pack(form, change(struct.unpack_from(form, vm.save(), at)[0])))


def set_entry(vm: Vm, page: ShadowPageView, index: int, value: int) -> None:
    poke_host(vm, page.hpa + 8 * index, value)


def named(vm: Vm, strict: bool = False) -> set[str]:
    found = audit(vm, strict)
    assert all(str(violation).startswith(violation.invariant) and violation.text for violation in found)
    return {violation.invariant for violation in found}


def test_i1_a_leaf_missing_from_the_table_and_one_missing_from_the_rmap() -> None:
    vm = guest()
    leaf = page_of(vm, 4, 1)
    set_entry(vm, leaf, 1, vm.nothing_in(leaf.hpa))
    assert named(vm) == {"I1", "I7"}, "it is counted, too"
    vm = guest()
    leaf = page_of(vm, 4, 1)
    set_entry(vm, leaf, 9, entries(vm, leaf)[1])
    assert "I1" in named(vm)


def test_i2_a_link_cleared_without_its_child_knowing() -> None:
    vm = guest()
    set_entry(vm, page_of(vm, 2, 2), 0, 0)
    assert "I2" in named(vm)


def test_i2_an_entry_named_twice_and_another_not_at_all() -> None:
    vm = guest()
    first, second = [in_process(vm, entry) for entry in page_of(vm, 4, 1).parents]
    state = vm.save()
    assert state.count(struct.pack("<QQ", first, second)) == 1  # the descriptor that holds both
    poke_arena(vm, state.index(struct.pack("<QQ", first, second)), struct.pack("<QQ", first, first))
    assert named(vm) == {"I2"} and "in a reverse list already" in audit(vm)[0].text


def test_i3_a_page_in_the_wrong_bucket() -> None:
    vm = guest()
    poke(vm, page_of(vm, 4, 1), GFN, "<Q", lambda gfn: gfn + 1)
    assert named(vm) == {"I3"}


def test_i4_an_old_page_before_a_new_one() -> None:
    vm = guest()
    newest = [page for page in vm.shadow_pages() if not page.special][-1]
    poke(vm, newest, VALID_GEN, "<B", lambda gen: gen ^ 1)
    assert "I4" in named(vm)


def test_i5_a_root_that_nobody_holds() -> None:
    vm = guest()
    poke(vm, page_of(vm, 2, 2), ROOT_COUNT, "<i", lambda count: count + 1)
    assert named(vm) == {"I5"}


def test_i6_a_count_that_is_not_the_bits() -> None:
    vm = guest()
    poke(vm, page_of(vm, 2, 2), UNSYNC_CHILDREN, "<I", lambda count: count + 1)
    assert named(vm) == {"I6"}


def test_i6_i7_an_unsync_page_that_no_parent_knows() -> None:
    vm = guest()
    poke(vm, page_of(vm, 4, 1), UNSYNC, "<B", lambda _: 1)
    assert named(vm) == {"I6", "I7"}


def test_i8_a_writable_mapping_of_a_shadowed_table() -> None:
    vm = guest()
    (sptep,) = vm.rmap(0x2000)
    poke_host(vm, sptep, vm.read_host_u64(sptep) | 0x602)
    assert named(vm) == {"I8"}


def test_i9_writable_without_the_software_bits() -> None:
    vm = guest()
    leaf = page_of(vm, 4, 1)
    set_entry(vm, leaf, 1, entries(vm, leaf)[1] & ~0x400)
    assert named(vm) == {"I9"}


def test_i9_a_leaf_of_a_table_in_sync_is_what_the_guests_entry_maps() -> None:
    """Stores that no MMU saw: another page, less rights, nothing. One that is declared is excused."""
    for stored in (0x105007, 0x101005, 0):
        vm = guest()
        put(vm, 0x4000 + 8, stored)
        assert named(vm) == {"I9"}
        assert audit(vm, untold={0x4008}) == []
    vm = unsync_guest()
    put(vm, 0x4000 + 8, 0x105007)  # the guest has not flushed yet
    assert named(vm, strict=True) == set()


def test_i10_a_link_leads_where_the_guests_entry_does() -> None:
    """Another table, less rights for all below, nothing; and a mark of another page without memory."""
    for stored in (0x5007, 0x4003, 0):
        vm = guest()
        put(vm, 0x2000, stored)
        assert named(vm) == {"I10"}
        assert audit(vm, untold={0x2000}) == []
    vm = guest()
    put(vm, 0x4000 + 8 * 20, 0x7F000007)
    assert touch(vm, 0x14000, READ) == Outcome.EMULATE
    assert named(vm) == set()
    put(vm, 0x4000 + 8 * 20, 0x7F001007)
    assert named(vm) == {"I10"}


def test_i9_a_leaf_that_allows_more_than_is_recorded() -> None:
    vm = pae_guest()
    put(vm, 0x4000 + 8, 0x101003)  # the supervisor's
    assert touch(vm, 0x1000) == Outcome.FIXED
    leaf = page_of(vm, 4, 1)
    assert named(vm) == set()
    set_entry(vm, leaf, 1, entries(vm, leaf)[1] | 4)
    assert named(vm) == {"I9"}


@pytest.mark.parametrize("bit", [0x2000, 0x20000, 0x1000000])
def test_i10_a_root_that_the_registers_do_not_ask_for(bit: int) -> None:
    """Made for CR0.WP off, for an L2, for SMM."""
    vm = Vm(memory_mib=8)
    put(vm, 0x1000, 0x2007)
    assert vm.vcpus[0].set_sregs(PG_WP, 0x1000, PAE_CR4, LONG)
    vm.vcpus[0].enter()
    assert named(vm) == set()
    poke(vm, page_of(vm, 1, 4), ROLE, "<I", lambda role: role ^ bit)
    assert "I10" in named(vm)


def test_i10_a_level_2_page_in_the_place_of_another() -> None:
    """Below the PDPTEs of a special and of a bare root."""
    for roots in ("special", "legacy"):
        vm = pae_guest(roots)
        for gva in (0x1000, 0x40003000):
            touch(vm, gva)
        assert named(vm) == set()
        top = next(iter(special_pages(vm))).hpa if roots == "special" else vm.vcpus[0].root
        assert top is not None
        poke_host(vm, top, vm.read_host_u64(top + 8))
        assert "I10" in named(vm)


def test_i18_an_obsolete_root_that_nobody_has_been_asked_to_drop() -> None:
    vm = guest()
    (root,) = special_pages(vm)
    poke(vm, root, VALID_GEN, "<B", lambda gen: gen ^ 1)
    assert "I18" in named(vm)
    vm = guest()
    vm.zap_all_fast()
    assert named(vm) == set()


def test_i9_strictly_a_frame_that_two_gfns_share() -> None:
    """Unsync and without a flush, the supervisor's entry moves to another page of zeroes, and is the user's then."""
    vm = unsync_guest()
    vm.unmap_hva(0x110000, 0x2000)
    put(vm, 0x4000 + 8 * 9, 0x110003)
    assert touch(vm, 0x9000, READ) == Outcome.FIXED
    assert named(vm, strict=True) == set()
    put(vm, 0x4000 + 8 * 9, 0x111007)
    assert named(vm, strict=True) == set()
    assert touch(vm, 0x9000, READ | USER) in (Outcome.FIXED, Outcome.SPURIOUS)
    assert named(vm) == set() and named(vm, strict=True) == {"I9"}


def guest_with_a_mark(access: int) -> Vm:
    """0x9000 was used where there was no memory; then there is, and the directory of the second gigabyte has a table there."""
    vm = guest()
    put(vm, 0x4000 + 8 * 9, 0x1000007)
    assert touch(vm, 0x9000, access) == Outcome.EMULATE
    vm.set_memslot(1, 0x1000000, 0x10000, 0)
    put(vm, 0x3008, 0x1000007)
    put(vm, 0x1000000, 0x110007)
    assert touch(vm, 0x40200000, READ) == Outcome.FIXED
    return vm


def test_i8_strictly_an_mmio_mark_is_no_check_for_tables() -> None:
    """A mark with W becomes a writable entry of a table in sync: Linux 6.1's own; without one, as any other entry would be, it is not."""
    vm = guest_with_a_mark(WRITE)
    assert named(vm, strict=True) == set()
    assert touch(vm, 0x9000) == Outcome.FIXED
    assert named(vm) == set() and named(vm, strict=True) == {"I8"}
    assert "is in sync" in audit(vm, strict=True)[0].text
    assert not page_of(vm, 0x1000, 1).unsync


def test_i8_an_entry_beside_one_made_of_a_mark_is_not_excused() -> None:
    """The page that holds the entry remembers; one in another page is a violation."""
    vm = guest_with_a_mark(WRITE)
    assert touch(vm, 0x9000) == Outcome.FIXED
    put(vm, 0x3010, 0x5007)
    put(vm, 0x5000, 0x1000007)
    assert touch(vm, 0x40400000, READ) == Outcome.FIXED
    assert named(vm) == set()
    other = page_of(vm, 5, 1)
    set_entry(vm, other, 0, entries(vm, other)[0] | 2)
    assert "I8" in named(vm)


def test_i16_strictly_no_mark_names_memory() -> None:
    """Memory is put where a mark says there is none, and the next flush renews the mark."""
    vm = unsync_guest()
    put(vm, 0x4000 + 8 * 9, 0x1000007)
    assert touch(vm, 0x9000, READ) == Outcome.EMULATE
    vm.set_memslot(1, 0x1000000, 0x10000, 0)
    assert named(vm, strict=True) == set()
    vm.vcpus[0].invlpg(0x1000)
    assert vm.vcpus[0].set_cr3(0x1000)
    vm.vcpus[0].enter()
    assert named(vm) == set() and named(vm, strict=True) == {"I16"}


def test_i9_another_pages_frame() -> None:
    vm = guest()
    leaf = page_of(vm, 4, 1)
    set_entry(vm, leaf, 1, entries(vm, leaf)[1] + 0x1000)
    assert named(vm) == {"I9"}


def test_i9_a_large_page_keeps_its_place_when_a_table_in_it_is_shadowed() -> None:
    """It only loses MMU-writable: a later write in it maps smaller. Made writable again, it is a violation."""
    vm = Vm(memory_mib=8, vcpus=2)
    vm.set_host_page_level(0, 8 << 20, 2)
    nonpaging, paging = vm.vcpus
    nonpaging.enter()
    assert nonpaging.page_fault(0x201000, 2) is Outcome.FIXED
    (sptep,) = vm.rmap(0x201000, level=2)
    assert vm.read_host_u64(sptep) & 0x82 == 0x82  # large and writable
    put(vm, 0x1000, 0x200007)  # a 2-level directory whose first table lies in the large page
    put(vm, 0x200000, 0x5067)
    assert paging.set_sregs(0x80010001, 0x1000, 0, 0)
    paging.enter()
    assert paging.page_fault(0, 0) is Outcome.FIXED
    assert vm.read_host_u64(sptep) & 0x82 == 0x80
    assert audit(vm) == []
    poke_host(vm, sptep, vm.read_host_u64(sptep) | 0x402)
    assert "I9" in named(vm)


def test_i10_a_link_of_another_kind() -> None:
    vm = guest()
    poke(vm, page_of(vm, 4, 1), ROLE, "<I", lambda role: role ^ 0x20000)
    assert "I10" in named(vm)


def test_i11_a_link_to_a_freed_page() -> None:
    vm = guest()
    free = max(page.hpa for page in vm.shadow_pages()) + 0x8000
    set_entry(vm, page_of(vm, 2, 2), 7, free | 0x827)
    assert "I11" in named(vm)


@pytest.mark.parametrize(("index", "bits"), [(0, 0x2), (0, 0x4), (0, 1 << 63)])
def test_i13_reserved_bits_in_a_pdpte(index: int, bits: int) -> None:
    vm = guest()
    (root,) = special_pages(vm)
    set_entry(vm, root, index, entries(vm, root)[index] | bits)
    assert named(vm) == {"I13"}


def test_i13_an_entry_beyond_the_fourth() -> None:
    vm = guest()
    (root,) = special_pages(vm)
    set_entry(vm, root, 5, entries(vm, root)[0])
    assert "I13" in named(vm)


def test_i14_a_header_neither_live_nor_free() -> None:
    vm = guest()
    poke(vm, page_of(vm, 4, 1), LIVE, "<B", lambda _: 0)
    assert "I14" in named(vm)


def test_i14_a_descriptor_that_no_list_has() -> None:
    vm = guest()
    poke(vm, page_of(vm, 4, 1), PARENT_PTES, "<Q", lambda _: 0)
    assert named(vm) == {"I2", "I14"}


def test_i14_a_descriptor_of_two_lists() -> None:
    vm = guest()
    shared = header(vm, page_of(vm, 4, 1)) + PARENT_PTES
    other = header(vm, page_of(vm, 2, 2)) + PARENT_PTES
    poke_arena(vm, other, vm.save()[shared : shared + 8])
    assert {"I2", "I14"} == named(vm)


def test_i16_bytes_that_are_neither_present_nor_a_mark() -> None:
    vm = guest()
    set_entry(vm, page_of(vm, 4, 1), 100, 0x123456)
    assert named(vm) == {"I16"}


def test_i17_an_invalid_page_that_is_linked() -> None:
    vm = guest()
    poke(vm, page_of(vm, 4, 1), ROLE, "<I", lambda role: role | INVALID)
    assert {"I5", "I17"} <= named(vm)


def test_i18_a_special_page_in_prev_roots() -> None:
    vm = guest()
    root = vm.vcpus[0].root
    assert root is not None
    at = vm.save().index(struct.pack("<QQ", 0x1000, root))  # the current root; the cached ones follow
    poke_arena(vm, at + 16, struct.pack("<QQ", 0x5000, root))
    assert named(vm) == {"I18"}


def test_i15_stores_show_in_the_dirty_log() -> None:
    vm = guest()
    vm.set_memslot(0, 0, 8 << 20, log_dirty=True)
    vm.get_dirty_log(0)
    assert touch(vm, 0x1000, 3) == Outcome.FIXED
    log = int.from_bytes(vm.get_dirty_log(0), "little")
    assert log >> 0x101 & 1


def test_what_the_kernel_would_warn_of_is_reported() -> None:
    """A PDPTE with a reserved bit, met while looking for an MMIO mark (hazard H11)."""
    vm = guest()
    put(vm, 0x4000 + 8 * 20, 0x7F000007)
    assert touch(vm, 0x14000, 0) == Outcome.EMULATE
    (root,) = special_pages(vm)
    set_entry(vm, root, 0, entries(vm, root)[0] | 2)
    vm.vcpus[0].set_cr3(0x1000)
    vm.vcpus[0].enter()
    with pytest.raises(Exception, match="reserved bits"):
        vm.vcpus[0].page_fault(0x14000, 8)
    assert {"WARN"} <= named(vm) and vm.bugs() == ["BUG_RSVD_MMIO_WALK"]
