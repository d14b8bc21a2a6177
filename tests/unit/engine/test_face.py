# SPDX-License-Identifier: GPL-2.0-only
"""What the Python face gives: records by name, text that helps."""

from __future__ import annotations

import re

from guest_tables import pae_guest, touch

from shadowmmu import Memslot, RootInfo, Vm
from shadowmmu.engine.arena.events import Event

PAGE = 4096


def test_a_byte_of_guest_memory_lies_where_its_slot_and_the_host_have_it() -> None:
    vm = Vm(memory_mib=0, user_mib=4)
    vm.set_memslot(3, 0x40_0000, 4 * PAGE, hva=0x8000)
    vm.set_memslot(4, 0x40_0000, 2 * PAGE, hva=0x2_0000, address_space=1, log_dirty=True)
    vm.set_memslot(5, 0x80_0000, PAGE, hva=0x8000, readonly=True)
    assert vm.memslots() == [
        Memslot(3, 0, 0x40_0000, 4 * PAGE, 0x8000, False, False),
        Memslot(5, 0, 0x80_0000, PAGE, 0x8000, True, False),
        Memslot(4, 1, 0x40_0000, 2 * PAGE, 0x2_0000, False, True),
    ]
    for slot in vm.memslots():
        for offset in range(0, slot.size, 0x123):
            page = vm.host_page(slot.hva + offset)
            assert page is not None
            assert vm.host_address(slot.gpa + offset, slot.address_space) == page + (slot.gpa + offset) % PAGE
    assert vm.host_address(0x40_0000 - 1) is None and vm.host_address(0x40_0000 + 4 * PAGE) is None
    vm.unmap_hva(0x9000, PAGE)
    assert vm.host_address(0x40_1000) is None and vm.host_address(0x40_2000) is not None


def test_counters_are_named_by_what_is_counted() -> None:
    vm = pae_guest(vcpus=2)
    before = vm.counters()
    touch(vm, 0x5000)
    touch(vm, 0x5000, vcpu=1)
    vm.vcpus[1].invlpg(0x5000)
    after = vm.counters()
    assert {name for name in after if after[name] != before[name]} >= {"pf_taken", "pf_fixed", "pages_4k", "invlpg"}
    assert after["pf_taken"] - before["pf_taken"] == 2 and after["invlpg"] - before["invlpg"] == 1, "summed over the vCPUs"
    assert after["mmu_pte_write"] == 0 and after["n_max_mmu_pages"] == 64


def test_a_page_is_looked_up_by_a_vcpu_and_zapped_by_the_vm() -> None:
    vm = pae_guest(vcpus=2)
    vm.start_trace()
    touch(vm, 0x5000, vcpu=1)
    vm.zap_all_fast()
    told: dict[int, set[int]] = {}
    for record in vm.records():
        told.setdefault(record.kind, set()).add(record.vcpu)
    assert told[Event.KVM_MMU_GET_PAGE] == {1}
    assert told[Event.KVM_MMU_PREPARE_ZAP_PAGE] == told[Event.KVM_MMU_ZAP_ALL_FAST] == {-1}


def test_records_show_addresses_in_hex_and_roles_in_words() -> None:
    vm = pae_guest()
    vm.start_trace()
    touch(vm, 0x5000)
    (special,) = [page for page in vm.shadow_pages() if page.special]
    assert f"hpa={special.hpa:#x}, gfn=0x0, role={special.role:#x} (l3 8-byte q0 wux efer_nx cr0_wp), root_count=0" in repr(special)
    assert repr(RootInfo(0x1000, 0x1_0200_0000)) == "RootInfo(pgd=0x1000, hpa=0x102000000)"
    assert repr(vm.memslots()[0]).startswith("Memslot(slot=0, address_space=0, gpa=0x0, size=0x800000,")
    assert all(re.match(r"EventRecord\(kind=\d+, vcpu=-?\d+, fields=\(0x[0-9a-f]+, ", repr(record)) for record in vm.records())


def test_a_vm_and_its_vcpus_say_what_they_are() -> None:
    vm = pae_guest()
    assert (
        repr(vm)
        == f"<Vm: 8 MiB, 1 vCPU, svm, shadow paging on 4 levels, special roots, {vm.counters()['n_used_mmu_pages']} of 64 shadow pages>"
    )
    root = vm.vcpus[0].root
    assert root is not None
    assert repr(vm.vcpus[0]) == f"<Vcpu 0: guest cr0 0x80010001 cr3 0x1000 cr4 0x20 efer 0x800, 3 levels on 3, root {root:#x}>"
    assert "2 levels" not in repr(Vm(memory_mib=1).vcpus[0]) and repr(Vm(memory_mib=1).vcpus[0]).endswith("0 levels on 3, no root>")
