# SPDX-License-Identifier: GPL-2.0-only
"""The Python face against its caller: wrong arguments and random calls raise, and never harm the process or the MMU.

What may come out of a call: a value, ValueError for a range, TypeError for a type, OverflowError for an integer that
64 bits cannot hold, an EngineError for what cannot be done now.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import pytest
from face_calls import WAYS, Child, any_calls, any_options, public
from face_child import Answer, Call
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu import EngineError, Entry, GuestMemoryError, Memslot, MemslotError, MmuView, ShadowPageView, Vcpu, Vm
from shadowmmu.check.audit import audit

MIB, HIGH = 1 << 20, 1 << 32
MEMORY = 4 * MIB
LONG_MODE = (0x80010031, 0x1000, 0x20, 0x500)
RAISED = (ValueError, TypeError, OverflowError, EngineError)


def machine() -> Vm:
    return Vm(memory_mib=MEMORY // MIB, vcpus=2, tdp=False)


# --- one wrong call, one clear error

WRONG_VM = [
    {"memory_mib": -1}, {"memory_mib": 1 << 17}, {"vcpus": 0}, {"vcpus": 65}, {"roots": "both"}, {"host_levels": 2}, {"vendor": "amd"},
    {"maxphyaddr": 31}, {"maxphyaddr": 52}, {"host_maxphyaddr": 0}, {"host_maxphyaddr": 200}, {"max_huge_level": 0},
    {"max_huge_level": 4}, {"shadow_pages": -1}, {"shadow_pages": 1 << 62}, {"table_pages": -1}, {"table_pages": 1 << 62},
    {"table_pages": (1 << 21) + 1}, {"user_mib": -1}, {"user_mib": 1}, {"user_mib": 1 << 56}, {"cr4_reserved": -1},
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG_VM, ids=str)
def test_a_vm_that_cannot_be_is_refused_by_the_argument_s_name(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))} is "):
        Vm(**arguments)


WRONG_CALLS: list[tuple[Callable[[Vm], object], type[Exception], str]] = [
    (lambda vm: vm.read_guest(0, 8, 2), ValueError, "address_space is 2"),
    (lambda vm: vm.write_guest(0, b"x", 99_999_999), ValueError, "address_space is 99999999"),
    (lambda vm: vm.read_guest(MEMORY - 4, 8), GuestMemoryError, "no memory at guest physical 0x400000"),
    (lambda vm: vm.rmap(0, 0), ValueError, "level is 0"),
    (lambda vm: vm.rmap(0, 4), ValueError, "level is 4"),
    (lambda vm: vm.rmap(0, 1, -1), ValueError, "address_space is -1"),
    (lambda vm: vm.get_dirty_log(0, -1), ValueError, "address_space is -1"),
    (lambda vm: vm.get_dirty_log(7), MemslotError, "memslot 7 does not exist"),
    (lambda vm: vm.set_memslot(-1, 1 << 30, 4096, 0), ValueError, "slot is -1"),
    (lambda vm: vm.set_memslot(1, (1 << 52) - 4096, 8192, 0), MemslotError, "addresses end at 0x10000000000000"),
    (lambda vm: vm.set_memslot(0, 0, MEMORY, readonly=True), MemslotError, "memslot 0 cannot change its size, memory or `readonly`"),
    (lambda vm: vm.set_host_page_level(0, 4096, 2), GuestMemoryError, "whole host pages of level 2"),
    (lambda vm: vm.start_trace(0), ValueError, "capacity is 0"),
    (lambda vm: vm.arm_interleave(1, 0, 0, 9), ValueError, "size is 9"),
    (lambda vm: vm.arm_interleave(1, MEMORY - 1, 0, 8), ValueError, "8 bytes at 0x3fffff: .* split it"),
    (lambda vm: vm.arm_interleave(3, 0, 0, 8), ValueError, "point is 3"),
    (lambda vm: vm.read_host_u64(HIGH + 4), ValueError, "hpa is 0x100000004; an 8-byte word"),
    (lambda vm: vm.read_host(HIGH + 1, (1 << 64) - 1), GuestMemoryError, "no host memory at 0x100000001"),
    (lambda vm: vm.write_host(HIGH + MEMORY, b"x"), GuestMemoryError, "is not guest memory"),  # the shared zeroes
    (lambda vm: vm.write_host(vm.vcpus[0].enter().root, b"x"), GuestMemoryError, "is not guest memory"),
    (lambda vm: vm.write_guest(MEMORY - 4, bytes(8)), GuestMemoryError, "no writable memory at guest physical 0x400000"),
    (lambda vm: vm.read_guest(0, 1 << 62), GuestMemoryError, "no memory at guest physical 0x400000"),
    (lambda vm: vm.read_guest(0, 1 << 20_000), OverflowError, "size is an integer of 20001 bits"),
    (lambda vm: vm.rmap(0, 1 << 20_000), ValueError, "level is an integer of 20001 bits"),
    (lambda vm: vm.rmap(0, "1"), TypeError, "level"),
    (lambda vm: vm.set_memslot(1, 0, 4096, "0"), TypeError, "hva"),
    (lambda vm: vm.restore(bytes(len(vm.save()))), ValueError, "a state of another VM"),
    (lambda vm: vm.restore(machine().save()), ValueError, "a state of another VM"),
    (lambda vm: vm.restore(vm.save()[1:]), ValueError, "a state of this VM has"),
    (lambda vm: vm.vcpus[0].read_emulated(0xFF0, 32), ValueError, "32 bytes at 0xff0"),
    (lambda vm: vm.vcpus[0].read_emulated(0, 65), ValueError, "65 bytes"),
    (lambda vm: vm.vcpus[0].write_emulated(0xFFF, bytes(2)), ValueError, "2 bytes at 0xfff"),
    (lambda vm: vm.vcpus[0].write_emulated(0, b""), ValueError, "0 bytes"),
    (lambda vm: vm.vcpus[0].nested_vmexit(), EngineError, "vCPU 0: L1 runs; enter an L2 first"),
    (lambda vm: vm.vcpus[0].nested_vmentry(*LONG_MODE, 0x1E), EngineError, "vCPU 0: this VM offers no EPT"),
    (lambda vm: Vm(vendor="vmx").vcpus[0].nested_vmrun(*LONG_MODE, 0), EngineError, "vCPU 0: an Intel CPU has no nested CR3"),
    (lambda vm: vm.vcpus[0].touch_range(0, 1 << 40, 1, 0), ValueError, "count is 1099511627776"),
    (lambda vm: setattr(vm.vcpus[0], "cr3", 0x1000), EngineError, "vCPU 0: without nested paging each write of CR3 exits"),
    (lambda vm: vm.vcpus[0].set_cr3(-1), OverflowError, "negative"),
    (lambda vm: vm.vcpus[0].set_cr3("0"), TypeError, "cr3|value"),
    (lambda vm: Vcpu(), TypeError, "a vCPU is made by its VM"),
    (lambda vm: Vcpu.__new__(Vcpu), TypeError, "a vCPU is made by its VM"),
]


@pytest.mark.parametrize("number", range(len(WRONG_CALLS)))
def test_a_wrong_call_raises(number: int) -> None:
    call, error, message = WRONG_CALLS[number]
    vm = machine()
    with pytest.raises(error, match=message):
        call(vm)
    assert not audit(vm)


def test_an_l2_cannot_be_entered_from_an_l2() -> None:
    vcpu = machine().vcpus[0]
    assert vcpu.nested_vmrun(*LONG_MODE)
    with pytest.raises(EngineError, match="vCPU 0: L2 runs; nested_vmexit first"):
        vcpu.nested_vmrun(*LONG_MODE)
    assert vcpu.guest_mode and vcpu.nested_vmexit() and not vcpu.guest_mode


def test_an_l1_that_has_shut_down_is_reset() -> None:
    """Its PDPTEs were taken from it while L2 ran, so that its CR3 has become illegal."""
    vm = Vm(memory_mib=4, tdp=True)
    vcpu = vm.vcpus[0]
    assert vcpu.set_sregs(0x80010031, 0x1000, 0x20, 0) and vcpu.nested_vmrun(0x11, 0, 0, 0)
    vcpu.enter()
    vm.write_guest(0x1000, b"\x67" * 32)
    assert not vcpu.nested_vmexit()
    assert vcpu.set_sregs(0x60000010, 0, 0, 0)
    vcpu.enter()
    assert not audit(vm)


def test_long_mode_is_not_set_with_a_cr3_beyond_the_guest_s_addresses() -> None:
    """kvm_is_valid_sregs: the check of a MOV to CR3, before anything is taken."""
    vcpu = machine().vcpus[0]
    cr0, _, cr4, efer = LONG_MODE
    assert not vcpu.set_sregs(cr0, 1 << 40, cr4, efer) and vcpu.cr3 == 0
    assert vcpu.set_sregs(cr0, (1 << 40) - 4096, cr4, efer)


def test_a_trace_that_finds_no_memory_leaves_none_running() -> None:
    vm = machine()
    vm.start_trace(16)
    with pytest.raises(MemoryError):
        vm.start_trace(1 << 40)  # 64 TiB of records
    vm.vcpus[0].enter()
    vm.vcpus[0].page_fault(0, 0)
    assert vm.records() == []


@pytest.mark.parametrize("kind", [Vm, Vcpu])
def test_a_method_is_not_called_on_another_object(kind: type) -> None:
    vm = machine()
    other = vm if kind is Vcpu else vm.vcpus[0]
    for name in set(public(kind)) - set(public(type(other))):
        found = getattr(kind, name)
        with pytest.raises(TypeError, match=name):
            found(other) if callable(found) else found.__get__(other)


# --- every public name, by reflection

EXAMPLES = int(os.environ.get("FACE_EXAMPLES", "150"))
"""How many sequences of calls; `make fuzz-face` sets many, and they are others each time."""
FIXED = settings(derandomize="FACE_EXAMPLES" not in os.environ)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    made = Child()
    yield made
    made.close()


def told(options: dict[str, object], calls: Iterable[Call], answer: Answer) -> str:
    return "\n".join((f"Vm(**{options})", *map(str, calls), answer.wrong))


@settings(FIXED, max_examples=EXAMPLES)
@given(options=any_options(), calls=any_calls())
def test_hostile_calls_raise_or_work_and_leave_a_sound_mmu(child: Child, options: dict[str, object], calls: list[Call]) -> None:
    """In a child process: a crash is a failure that hypothesis shrinks."""
    answer = child.ask(options, calls)
    assert not answer.wrong, told(options, calls, answer)


def test_every_public_name_of_the_face_is_reached(child: Child) -> None:
    reached: set[str] = set()

    @settings(FIXED, max_examples=8)
    @given(calls=st.tuples(*WAYS))
    def run(calls: tuple[Call, ...]) -> None:
        answer = child.ask({"memory_mib": 4}, list(calls))
        assert not answer.wrong, told({"memory_mib": 4}, calls, answer)
        reached.update(answer.reached)

    run()
    kinds = (Vm, Vcpu, Entry, Memslot, MmuView, ShadowPageView)
    assert {f"{kind.__name__}.{name}" for kind in kinds for name in public(kind)} - reached == set()
