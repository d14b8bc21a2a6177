# SPDX-License-Identifier: GPL-2.0-only
"""I11 in earnest: what a TLB holds and its entries no longer allow is seen at VM entry; what they allow is not complained of."""

import pytest

from shadowmmu import Vm
from shadowmmu.check.oracle.agreement import Agreement
from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.oracle import Oracle
from shadowmmu.hardware.cpu import ModelCpu
from shadowmmu.hardware.host_memory import HostMemory, Violation
from shadowmmu.hardware.walk import Features, TrailEntry, walk

GVA = 0x5000
BESIDE = 0x6000  # mapped ahead, with GVA; nobody accesses it


class Memory(GuestMemory):
    """Guest memory behind one slot of the VM."""

    def __init__(self, vm: Vm, host: HostMemory) -> None:
        self.vm, self.memory = vm, host

    def read(self, hpa: int, size: int) -> int:
        return self.memory.read(hpa, size)

    def host(self, gpa: int) -> int | None:
        return self.vm.host_address(gpa)

    def writable(self, gpa: int) -> bool:
        return True


def running(write: bool = True) -> tuple[ModelCpu, HostMemory, list[TrailEntry]]:
    """A vCPU without paging that holds a translation of GVA, and the entries that it was made of."""
    vm = Vm(memory_mib=4, vcpus=1)
    vm.vcpus[0].set_sregs(cr0=0x31, cr3=0, cr4=0, efer=0)
    memory = HostMemory(vm.host_regions())
    oracle = Oracle(Memory(vm, memory), (GVA, BESIDE), 1, Features(maxphyaddr=40))
    cpu = ModelCpu(vm.vcpus[0], memory, Features(maxphyaddr=46), oracle.vcpus[0])
    Agreement(cpu, oracle.vcpus[0], lambda _: False, (GVA, BESIDE), {0: (GVA, BESIDE)})
    cpu.access(GVA, 2 if write else 0, False, 8, 1 if write else None)
    pdpte, trail = cpu.root + 8 * (GVA >> 30), list[TrailEntry]()
    walk(cpu.mode, memory.read, cpu.root, GVA, trail=trail)
    return cpu, memory, [TrailEntry(0, pdpte, memory.read(pdpte, 8), 0, 0), *trail]


def test_i11_an_unchanged_table_agrees() -> None:
    cpu, _, path = running()
    assert len(path) >= 3  # the PDPTE, the directory's entry, the leaf
    cpu.enter()


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("change", ["gone", "elsewhere"])
def test_i11_an_entry_of_any_level_that_changes_without_a_flush(number: int, change: str) -> None:
    cpu, memory, path = running()
    used = path[number]
    memory.write(used.pa, 8, 0 if change == "gone" else used.entry ^ 0x10000)
    with pytest.raises(Violation, match="I11"):
        cpu.enter()


def test_i11_a_right_to_write_that_was_used() -> None:
    cpu, memory, path = running()
    memory.write(path[-1].pa, 8, path[-1].entry & ~2)
    with pytest.raises(Violation, match="I11"):
        cpu.enter()


def test_i11_marks_and_what_a_guest_takes_itself_need_no_flush() -> None:
    cpu, memory, path = running()
    memory.write(path[-1].pa, 8, (path[-1].entry | 1 << 63) & ~0x64)  # NX, and no U, A, D
    cpu.enter()


def test_i11_a_flush_that_was_asked_for() -> None:
    cpu, memory, path = running()
    cpu.flush()
    memory.write(path[-1].pa, 8, 0)
    cpu.enter()


def test_i11_another_root_without_a_flush() -> None:
    """What is held is of the first; the guest may keep it itself, by a load of CR3 that says so."""
    cpu, _, _ = running()
    cpu.enter()
    first, cpu.root = cpu.root, cpu.root + 0x1000
    with pytest.raises(Violation, match=r"I11: enters the guest on root .* with what the TLB holds of root"):
        cpu.entered()  # type: ignore[misc]
    cpu.root = first
    cpu.entered()  # type: ignore[misc]
    cpu.observer.space.mixed = True  # type: ignore[attr-defined]
    assert cpu.held is not None and cpu.held.root(cpu.tag) == first
    cpu.held.flush()
    assert cpu.held.root(cpu.tag) == 0


def test_i12_a_guest_that_has_flushed_and_tables_that_are_not_in_sync() -> None:
    cpu, _, _ = running()
    tlb = cpu.observer.oracle.vcpus[0]  # type: ignore[attr-defined]
    Agreement(cpu, tlb, lambda at: at == cpu.root, (GVA, BESIDE), {0: (GVA, BESIDE)})
    cpu.enter()  # nothing was flushed
    tlb.flush()
    with pytest.raises(Violation, match="I12: has flushed, and enters the guest with unsync tables"):
        cpu.enter()
    cpu.enter()


def entry_beside(path: list[TrailEntry]) -> int:
    """Where the leaf of BESIDE lies: the next one of the same table."""
    return path[-1].pa + 8


def test_i11_what_nobody_has_accessed_may_be_held_too() -> None:
    cpu, memory, path = running()
    cpu.enter()  # now its tables allow BESIDE
    memory.write(entry_beside(path), 8, 0)
    with pytest.raises(Violation, match=r"I11: .* walked ahead to 0x6000"):
        cpu.enter()


@pytest.mark.parametrize("how", ["flush", "one address"])
def test_i11_what_was_flushed_is_held_no_more(how: str) -> None:
    cpu, memory, path = running()
    cpu.enter()
    if how == "flush":
        cpu.held.flush()
    else:
        cpu.forget(BESIDE)
    memory.write(entry_beside(path), 8, 0)
    cpu.enter()


def test_i12_what_the_tables_allow_and_the_guest_does_not() -> None:
    cpu, memory, path = running()
    cpu.enter()
    cpu.held.flush()
    memory.write(entry_beside(path), 8, memory.read(entry_beside(path), 8) ^ 0x1000)
    with pytest.raises(Violation, match=r"read of 0x6000 went to host .*; the guest allowed only"):
        cpu.enter()
