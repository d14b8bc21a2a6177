# SPDX-License-Identifier: GPL-2.0-only
"""System-management mode: other memslots, and shadow pages of its own."""

import pytest

from shadowmmu import EngineError, Vm
from shadowmmu.engine.arena.role import Role

PAGE = 0x1000


def test_its_memory_is_that_of_the_other_address_space() -> None:
    vm = Vm(memory_mib=1, user_mib=2)
    vm.set_memslot(0, 0, 1 << 20, hva=1 << 20, address_space=1)
    vm.write_guest(PAGE, b"own")
    vm.write_guest(PAGE, b"smm", address_space=1)
    (vcpu,) = vm.vcpus
    assert vcpu.set_sregs(cr0=0x31, cr3=0, cr4=0, efer=0) and not vcpu.smm
    for smm, found in ((True, b"smm"), (False, b"own")):
        vcpu.smm = smm
        assert vcpu.smm is smm and vcpu.root is None, "nothing of before is used"
        vcpu.enter()
        assert bool(vcpu.root_role & Role.SMM) is smm
        assert vcpu.page_fault(PAGE, 0).name == "FIXED"
        assert vcpu.read_emulated(PAGE, 3) == found
        assert len(vm.rmap(PAGE, address_space=int(smm))) == 1


def test_no_change_changes_nothing() -> None:
    vm = Vm(memory_mib=1)
    root = vm.vcpus[0].enter().root
    vm.vcpus[0].smm = False
    assert vm.vcpus[0].root == root


def test_an_l2_leaves_first() -> None:
    vm = Vm(memory_mib=1)
    vm.vcpus[0].set_sregs(cr0=0x31, cr3=0, cr4=0, efer=0)
    assert vm.vcpus[0].nested_vmrun(0x31, 0, 0, 0)
    with pytest.raises(EngineError, match="L2 runs"):
        vm.vcpus[0].smm = True
