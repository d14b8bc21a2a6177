# SPDX-License-Identifier: GPL-2.0-only
"""Dirty logs: read and cleared in one call or in two, and huge mappings split when they begin or when they are cleared."""

from __future__ import annotations

import struct

import pytest
from guest_tables import READ, WRITE, pae_guest, put
from poke import poke_arena

from shadowmmu import MemslotError, Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.arena.events import Event
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pferr import Pferr

NPF = int(Pferr.USER | Pferr.GUEST_FINAL)
LONG = (int(Cr0.PE | Cr0.PG | Cr0.WP), 0x10000, int(Cr4.PAE), int(Efer.NXE | Efer.LME | Efer.LMA))
HUGE, PAGES = 0x400000, 1024
ALL = b"\xff" * (PAGES // 8)
MAPPED_BY = {"4-level": 4, "pae": 3, "2-level": 2}


def nested_guest(form: str, roots: str = "special", **options: bool) -> Vm:
    """Slot 1 is two huge pages at HUGE, which L1 of this form maps by 2 or 4 MiB; L2 has written to both, then they are in use."""
    vm = Vm(memory_mib=0, user_mib=16, tdp=True, roots=roots, table_pages=200, **options)
    vm.set_memslot(0, 0, HUGE)
    vm.set_memslot(1, HUGE, 2 * HUGE // 2, HUGE)
    vm.set_host_page_level(HUGE, HUGE, 2)
    if form == "2-level":
        vm.write_guest(0x20004, struct.pack("<I", HUGE | 0xE7))
        l1 = (LONG[0], 0x10000, int(Cr4.PSE), 0)
    else:
        put(vm, 0x20000, 0x21000 | (7 if form == "4-level" else 1))
        put(vm, 0x21000, 0x22000 | 7)
        for page in range(2):
            put(vm, (0x22000 if form == "4-level" else 0x21000) + 8 * (2 + page), HUGE + (page << 21) | 0xE7)
        l1 = LONG if form == "4-level" else (LONG[0], 0x10000, int(Cr4.PAE), int(Efer.NXE))
    (vcpu,) = vm.vcpus
    assert vcpu.set_sregs(*l1)
    vcpu.enter()
    assert vcpu.nested_vmrun(int(Cr0.PE), 0, 0, 0, ncr3=0x20000)
    for page in range(2):
        vcpu.enter()
        assert vcpu.page_fault(HUGE + (page << 21), NPF | WRITE) is Outcome.FIXED
    assert vm.counters()["pages_2m"] == 2
    return vm


@pytest.mark.parametrize("roots", ["special", "legacy"])
@pytest.mark.parametrize("form", MAPPED_BY)
def test_what_l2_maps_by_huge_pages_is_split_when_the_log_begins(form: str, roots: str) -> None:
    vm = nested_guest(form, roots, eager_page_split=True)
    vm.start_trace()
    vm.set_memslot(1, HUGE, HUGE, HUGE, log_dirty=True)
    split = [record.fields[:4] for record in vm.records() if record.kind == Event.KVM_MMU_SPLIT_HUGE_PAGE]
    assert sorted((gfn, level, errno) for gfn, _, level, errno in split) == [(HUGE >> 12, 2, 0), ((HUGE >> 12) + 512, 2, 0)]
    assert (vm.counters()["pages_2m"], vm.counters()["pages_4k"]) == (0, PAGES)
    assert audit(vm, strict=True) == [] and not vm.bugs()
    (vcpu,) = vm.vcpus
    assert vcpu.page_fault(HUGE + 0x5000, NPF | WRITE) is Outcome.FIXED
    assert vm.get_dirty_log(1) == (1 << 5).to_bytes(PAGES // 8, "little")
    vm.set_memslot(1, HUGE, HUGE, HUGE)
    assert vm.counters()["pages_4k"] == 0  # what can be huge again is
    assert audit(vm, strict=True) == []


def test_without_eager_splits_they_wait_for_a_write() -> None:
    vm = nested_guest("4-level")
    vm.set_memslot(1, HUGE, HUGE, HUGE, log_dirty=True)
    assert vm.counters()["pages_2m"] == 2
    assert vm.vcpus[0].page_fault(HUGE + 0x5000, NPF | WRITE) is Outcome.FIXED
    assert (vm.counters()["pages_2m"], vm.counters()["pages_4k"]) == (1, 1)
    assert audit(vm, strict=True) == []


def test_no_page_left_for_a_split_leaves_the_mapping_protected() -> None:
    vm = nested_guest("4-level", eager_page_split=True, shadow_pages=64)
    used = vm.counters()["n_used_mmu_pages"]
    for limit in (used + 5, used + 6):  # refused; then one page is split, which leaves five again
        vm = nested_guest("4-level", eager_page_split=True)
        limit_pages(vm, limit)
        vm.set_memslot(1, HUGE, HUGE, HUGE, log_dirty=True)
        assert vm.counters()["pages_2m"] == used + 7 - limit
        assert audit(vm, strict=True) == []


def limit_pages(vm: Vm, limit: int) -> None:
    """Room for so many pages: KVM_SET_NR_MMU_PAGES takes no less than 64."""
    used, room = vm.counters()["n_used_mmu_pages"], vm.counters()["n_max_mmu_pages"]
    state = vm.save()
    assert state.count(struct.pack("<QQ", used, room)) == 1
    poke_arena(vm, state.index(struct.pack("<QQ", used, room)), struct.pack("<QQ", used, limit))


def logged_guest() -> Vm:
    """A shadow-paged guest; pages 0x1000 and 0x2000, at 0x101000 and 0x102000, are written while the log runs."""
    vm = pae_guest()
    vm.set_manual_dirty_log_protect()
    vm.set_memslot(0, 0, 8 << 20, log_dirty=True)
    for gva in (0x1000, 0x2000):
        vm.vcpus[0].enter()
        assert vm.vcpus[0].page_fault(gva, WRITE) is Outcome.FIXED
    return vm


def dirty(vm: Vm) -> set[int]:
    bitmap = vm.get_dirty_log(0)
    return {page for page in range(0x100, 0x110) if bitmap[page >> 3] >> (page & 7) & 1}


def test_a_log_that_reading_does_not_clear() -> None:
    vm = logged_guest()
    assert dirty(vm) == dirty(vm) == {0x101, 0x102}
    vm.clear_dirty_log(0, 0x100, 64, (2).to_bytes(8, "little"))
    assert dirty(vm) == {0x102}
    assert [vm.read_host_u64(vm.rmap(gpa)[0]) & 2 for gpa in (0x101000, 0x102000)] == [0, 2]
    assert vm.vcpus[0].page_fault(0x1000, WRITE | 1) is Outcome.FIXED
    assert dirty(vm) == {0x101, 0x102}
    assert audit(vm, strict=True) == []


def test_a_log_that_begins_with_all_pages_dirty_protects_what_is_cleared() -> None:
    vm = nested_guest("4-level", eager_page_split=True)
    vm.set_manual_dirty_log_protect(initially_set=True)
    vm.set_memslot(1, HUGE, HUGE, HUGE, log_dirty=True)
    assert vm.get_dirty_log(1) == ALL and vm.counters()["pages_2m"] == 2
    vm.clear_dirty_log(1, 512, 64, b"\x01" + bytes(7))
    assert vm.counters()["pages_2m"] == 1 and vm.counters()["pages_4k"] == 512
    assert audit(vm, strict=True) == []
    entry = vm.read_host_u64(vm.rmap(HUGE + (512 << 12))[0])
    assert not entry & 2 and vm.read_host_u64(vm.rmap(HUGE + (513 << 12))[0]) & 2
    assert vm.vcpus[0].page_fault(HUGE + (512 << 12), NPF | WRITE | 1) is Outcome.FIXED
    assert vm.get_dirty_log(1) == ALL


def test_without_eager_splits_a_cleared_page_protects_the_huge_one() -> None:
    vm = nested_guest("4-level")
    vm.set_manual_dirty_log_protect(initially_set=True)
    vm.set_memslot(1, HUGE, HUGE, HUGE, log_dirty=True)
    vm.clear_dirty_log(1, 0, 64, b"\x02" + bytes(7))
    first, second = (vm.read_host_u64(vm.rmap(HUGE + (page << 21), 2)[0]) for page in range(2))
    assert not first & 2 and second & 2
    assert audit(vm, strict=True) == []
    assert vm.vcpus[0].page_fault(HUGE + 0x1000, NPF | READ) is Outcome.FIXED
    assert (vm.counters()["pages_2m"], vm.counters()["pages_4k"]) == (1, 1)


@pytest.mark.parametrize(
    ("first", "pages", "size", "error"),
    [(1, 64, 8, ValueError), (0, 63, 8, ValueError), (0, 64, 7, ValueError), (0, 1 << 20, 8, ValueError), (-64, 64, 8, ValueError)],
)
def test_what_the_kernel_refuses_to_clear(first: int, pages: int, size: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        logged_guest().clear_dirty_log(0, first, pages, bytes(size))


def test_no_log_no_clearing() -> None:
    vm = pae_guest()
    with pytest.raises(MemslotError, match="keeps no dirty log"):
        vm.clear_dirty_log(0, 0, 64, bytes(8))
    with pytest.raises(ValueError, match="needs manual"):
        vm.set_manual_dirty_log_protect(False, initially_set=True)
