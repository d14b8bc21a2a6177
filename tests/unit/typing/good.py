# SPDX-License-Identifier: GPL-2.0-only
"""What a user of the package may write: each line is right under mypy --strict and pyright, and gives the type it is said to give."""

from typing import assert_type

from shadowmmu import (
    EngineError,
    Entry,
    Levels,
    Memslot,
    MmuView,
    NestedWalk,
    Outcome,
    PageFaultException,
    RootInfo,
    ShadowPageView,
    Vcpu,
    Vm,
    VmConfig,
)
from shadowmmu.check.audit import Violation, audit
from shadowmmu.engine.arena.events import Event
from shadowmmu.engine.arena.role import Role, describe_role
from shadowmmu.engine.arena.state import Request
from shadowmmu.trace.engine import from_records
from shadowmmu.x86.control import Cr0, Cr4, Efer, paging_levels
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.pte import Pte


def fault_in(vcpu: Vcpu, gva: int) -> Outcome:
    entry = vcpu.enter()
    assert_type(entry, Entry)
    assert_type(entry.flush_gvas, tuple[int, ...])
    outcome = vcpu.page_fault(gva, Pferr.WRITE | Pferr.USER)
    if outcome is Outcome.INJECT and vcpu.exception is not None:
        assert_type(vcpu.exception, PageFaultException)
        print(hex(vcpu.exception.cr2), vcpu.exception.error_code & Pferr.PRESENT)
    return outcome


def look_at(vm: Vm) -> list[Violation]:
    for page in vm.shadow_pages():
        assert_type(page, ShadowPageView)
        print(page.text, describe_role(page.role), page.role & Role.QUADRANT, [hex(parent) for parent in page.parents])
    for vcpu in vm.vcpus:
        assert_type(vcpu.mmus, tuple[MmuView, ...])
        assert_type(vcpu.prev_roots, tuple[RootInfo, ...])
        assert_type(vcpu.levels, Levels)
        assert_type(vcpu.root, int | None)
        assert_type(vcpu.nested_walk(0x1000), NestedWalk | None)
        print(vcpu.requests & Request.REQ_MMU_SYNC, vcpu.vm is vm)
    assert_type(vm.memslots(), list[Memslot])
    assert_type(vm.counters(), dict[str, int])
    return audit(vm)


def trace(vm: Vm) -> int:
    vm.start_trace()
    try:
        fault_in(vm.vcpus[0], 0x5000)
    except EngineError as error:
        print(error)
    records = vm.records()
    print(from_records(records))
    return sum(record.kind == Event.KVM_MMU_GET_PAGE for record in records)


vm = Vm(memory_mib=8, vcpus=2, roots="special")
assert_type(vm.config, VmConfig)
vm.set_memslot(1, 0x1000_0000, 0x1000, hva=0, readonly=True)
vm.write_guest(0x1000, int(Pte.PRESENT | Pte.WRITABLE).to_bytes(8, "little"))
assert_type(vm.read_guest(0x1000, 8), bytes)
assert_type(vm.host_address(0x1000), int | None)
vm.vcpus[0].cr2 = 0x1000
vm.vcpus[0].set_sregs(Cr0.PG | Cr0.PE, 0x1000, Cr4.PAE, Efer.LME)
assert_type(paging_levels(Cr0.PG, 0, 0), int)
