# SPDX-License-Identifier: GPL-2.0-only
"""The host's pages: a huge one has frames in a row, and what changes a part of it makes it small pages."""

from __future__ import annotations

import pytest
from guest_tables import ADDR, READ, pae_guest, touch
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu import EngineError, GuestMemoryError, Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.x86.pte import Pte

PAGE, MIB2 = 1 << 12, 1 << 21
ACCESSED = int(Pte.ACCESSED)
PAGES = st.integers(0, 2047)
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(("unmap_hva", "invalidate_hva", "write_protect_hva", "allow", "age_hva")), PAGES, st.integers(1, 600)),
    st.tuples(st.just("level 2"), st.integers(0, 3), st.integers(1, 2)),
    st.tuples(st.just("level 1"), PAGES, st.integers(1, 300)),
    st.tuples(st.just("touch"), PAGES, st.booleans()),
)


def operate(vm: Vm, what: str, first: int, count: int) -> None:
    scale = MIB2 if what == "level 2" else PAGE
    start, size = first * scale, count * scale
    if what == "touch":
        vm.vcpus[0].enter()
        vm.vcpus[0].page_fault(start, 2 if count else 0)
    elif what.startswith("level"):
        vm.set_host_page_level(start, size, int(what[-1]))
    elif what == "allow":
        vm.write_protect_hva(start, size, True)
    else:
        getattr(vm, what)(start, size)


def leads_home(vm: Vm, level: int) -> bool:
    """Every mapping of this size leads to the frames that the host has now, page by page."""
    count = 512 ** (level - 1)
    for gpa in range(0, vm.memory_size, PAGE * count):
        for sptep in vm.rmap(gpa, level):
            frame = vm.read_host_u64(sptep) & ADDR
            if any(vm.host_page(gpa + PAGE * i) != frame + PAGE * i for i in range(count)):
                return False
    return True


@settings(max_examples=80)
@given(tdp=st.booleans(), operations=st.lists(OPERATIONS, min_size=4, max_size=25))
def test_no_mapping_leads_to_memory_that_is_not_the_guest_s(tdp: bool, operations: list[tuple[str, int, int]]) -> None:
    vm = Vm(memory_mib=8, tdp=tdp)
    for operation in [("level 2", 0, 4), *operations]:
        try:
            operate(vm, *operation)
        except EngineError:
            continue
    assert leads_home(vm, 1) and leads_home(vm, 2)
    assert vm.bugs() == [] and audit(vm) == []


def test_frames_that_do_not_lie_in_a_row_are_no_huge_page() -> None:
    vm = Vm(memory_mib=4)
    vm.unmap_hva(0x5000, PAGE)
    with pytest.raises(GuestMemoryError, match=r"^user memory 0x0\+0x200000 cannot be host pages of level 2"):
        vm.set_host_page_level(0, MIB2, 2)
    vm.write_guest(0x5000, b"x")  # another frame
    with pytest.raises(GuestMemoryError, match="not all its frames lie in a row"):
        vm.set_host_page_level(0, MIB2, 2)
    vm.set_host_page_level(MIB2, MIB2, 2)
    vm.vcpus[0].enter()
    vm.vcpus[0].page_fault(MIB2 + 0x3000, 2)
    assert len(vm.rmap(MIB2, 2)) == 1


def test_what_is_left_of_a_huge_page_is_small() -> None:
    vm = Vm(memory_mib=4)
    vm.set_host_page_level(0, 2 * MIB2, 2)
    vm.vcpus[0].enter()
    vm.unmap_hva(0x5000, PAGE)
    vm.vcpus[0].page_fault(0x8000, 2)
    vm.vcpus[0].page_fault(MIB2, 2)
    assert [len(vm.rmap(gpa, 2)) for gpa in (0, MIB2)] == [0, 1] and len(vm.rmap(0x8000)) == 1


@pytest.mark.parametrize("change", ["unmap_hva", "invalidate_hva", "write_protect_hva"])
def test_a_change_of_no_page_leaves_a_huge_page_whole(change: str) -> None:
    vm = Vm(memory_mib=4)
    vm.set_host_page_level(0, MIB2, 2)
    getattr(vm, change)(0x1000, 0)
    vm.vcpus[0].enter()
    vm.vcpus[0].page_fault(0x3000, 2)
    assert len(vm.rmap(0, 2)) == 1


def test_what_is_in_use_is_told_once_and_mapped_anew_when_it_is_used() -> None:
    """kvm_age_gfn clears A without a flush; a fault that comes after it has something to mend, and maps pages about it, too."""
    vm = pae_guest()
    assert touch(vm, 0x3000, READ) is Outcome.FIXED
    (sptep,) = vm.rmap(0x103000, 1)
    entry = vm.read_host_u64(sptep)
    assert entry & ACCESSED and vm.age_hva(0x103000, PAGE)
    assert vm.read_host_u64(sptep) == entry & ~ACCESSED
    assert not vm.age_hva(0x103000, PAGE) and not vm.vcpus[0].enter().flush_all
    assert touch(vm, 0x3000, READ) is Outcome.FIXED
    assert vm.read_host_u64(sptep) == entry
    assert touch(vm, 0x3000, READ) is Outcome.SPURIOUS
    assert audit(vm) == []
