# SPDX-License-Identifier: GPL-2.0-only
"""What others do between the walk of a fault and the lock: the fault is tried again, and finds what is there by then."""

import pytest

from shadowmmu import Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.memory.guest_memory import InterleaveEvent, InterleavePoint

PAGE, FIRST = 0x1000, 0x5000


def nonpaging() -> Vm:
    vm = Vm(memory_mib=1, user_mib=1)
    vm.vcpus[0].set_sregs(cr0=0x31, cr3=0, cr4=0, efer=0)
    vm.write_guest(FIRST, b"content")
    return vm


@pytest.mark.parametrize("event", [InterleaveEvent.ZAP_ALL, InterleaveEvent.MOVE_PAGE])
def test_a_fault_in_which_something_happens_is_tried_again(event: int) -> None:
    vm = nonpaging()
    vcpu = vm.vcpus[0]
    vcpu.enter()
    vm.arm_interleave(int(InterleavePoint.AFTER_WALK), FIRST, 0, 1, int(event))
    before = vm.host_address(FIRST)
    assert vcpu.page_fault(FIRST, 2).name == "RETRY"
    assert (vm.host_address(FIRST) != before) is (event == InterleaveEvent.MOVE_PAGE)
    vcpu.enter()
    assert vcpu.page_fault(FIRST, 2).name == "FIXED"
    assert vm.read_guest(FIRST, 7) == b"content" and not audit(vm)


def test_a_page_without_a_frame_of_its_own_does_not_move() -> None:
    vm = nonpaging()
    vm.unmap_hva(FIRST, PAGE)
    vm.vcpus[0].enter()
    vm.arm_interleave(1, FIRST, 0, 1, int(InterleaveEvent.MOVE_PAGE))
    assert vm.vcpus[0].page_fault(FIRST, 0).name == "FIXED"


def test_only_a_store_comes_under_the_lock() -> None:
    with pytest.raises(ValueError, match="only a store can come while the MMU is locked"):
        nonpaging().arm_interleave(2, 0, 0, 1, 1)
