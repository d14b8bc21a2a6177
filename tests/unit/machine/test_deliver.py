# SPDX-License-Identifier: GPL-2.0-only
"""Delivery of events through the guest's IDT, mode by mode, with known answers from the manuals."""

import struct
from typing import Any

import pytest
from flat_bench import FlatVcpu

from shadowmmu.machine.memory.linear_memory import Event, GuestFault, GuestMemory
from shadowmmu.machine.seam import Reg, Seg, Segment, State, System, Table
from shadowmmu.machine.vcpu.deliver import TaskGate, TripleFaultDelivery, deliver, second_event
from shadowmmu.x86.vectors import BP, DE, DF, GP, NP, PF, SS, TS, UD

SIZE = 0x10000
IDT, GDT, TSS, LDT = 0x1000, 0x2000, 0x3000, 0x3800
KERNEL_STACK, USER_STACK, HANDLER, RIP = 0x5000, 0x6000, 0x7000, 0x8123
CODE, DATA, USER_CODE, USER_DATA, CODE_64, CONFORMING, USER_64 = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x3B
PE, LMA = 0x1, 0x400
IF, TF, NT, VM, RF = 0x200, 0x100, 0x4000, 0x20000, 0x10000
_DESCRIPTORS = {
    CODE: 0x00CF9B000000FFFF,
    DATA: 0x00CF93000000FFFF,
    0x18: 0x00CFFB000000FFFF,
    0x20: 0x00CFF3000000FFFF,
    CODE_64: 0x00AF9B000000FFFF,
    CONFORMING: 0x00CF9F000000FFFF,
    0x38: 0x00AFFB000000FFFF,
}


class StackedVcpu(FlatVcpu):
    """Flat memory, no paging, with a look at the stack. Absent pages fault."""

    def __init__(self) -> None:
        super().__init__(bytearray(SIZE))
        self.efer = 0

    def stack(self, pointer: int, width: int, count: int) -> list[int]:
        return [int.from_bytes(self.ram[pointer + width * i : pointer + width * (i + 1)], "little") for i in range(count)]


class World:
    """A guest with descriptor tables, in ring 0 or 3 of 32- or 64-bit mode."""

    def __init__(self, *, long: bool = False, user: bool = False) -> None:
        self.vcpu = StackedVcpu()
        self.long = long
        self.vcpu.efer = LMA if long else 0
        any_vcpu: Any = self.vcpu
        self.memory = GuestMemory(any_vcpu, lambda gpa, size: None)
        for selector, raw in _DESCRIPTORS.items():
            struct.pack_into("<Q", self.vcpu.ram, GDT + selector, raw)
        if long:
            struct.pack_into("<Q", self.vcpu.ram, TSS + 4, KERNEL_STACK)
        else:
            struct.pack_into("<II", self.vcpu.ram, TSS + 4, KERNEL_STACK, DATA)
        self.state = self._state(long, user)

    @staticmethod
    def _state(long: bool, user: bool) -> State:
        attr = 0xA9B if long else 0xC9B
        dpl = 0x60 if user else 0
        code = Segment((USER_64 if long else USER_CODE) if user else (CODE_64 if long else CODE), attr | dpl, 0xFFFFFFFF, 0)
        data = Segment(USER_DATA if user else DATA, 0xC93 | dpl, 0xFFFFFFFF, 0)
        system = System(
            (data, code, data, data, data, data),
            Segment(0, 0, 0, 0),
            Segment(0x40, 0x8B, 0x67, TSS),
            Table(GDT, 0x3F),
            Table(IDT, 0xFFF),
            3 if user else 0,
            0xFFFF0FF0,
            0x400,
            0,
        )
        return State([0x100 + i for i in range(4)] + [USER_STACK] + [0] * 11, RIP, 2 | IF | TF | NT, system)

    def gate(self, vector: int, *, selector: int | None = None, kind: int = 0xE, dpl: int = 0, present: bool = True, ist: int = 0) -> None:
        selector = (CODE_64 if self.long else CODE) if selector is None else selector
        raw = HANDLER & 0xFFFF | selector << 16 | ist << 32 | (kind | dpl << 5 | present << 7) << 40 | HANDLER >> 16 << 48
        size = 16 if self.long else 8
        self.vcpu.ram[IDT + size * vector : IDT + size * (vector + 1)] = raw.to_bytes(size, "little")

    def deliver(self, event: Event) -> State:
        return deliver(self.state, PE, self.vcpu.efer, self.memory, event)

    def fault(self, event: Event) -> tuple[int, int]:
        before = bytes(self.vcpu.ram)
        with pytest.raises(GuestFault) as fault:
            self.deliver(event)
        assert bytes(self.vcpu.ram) == before, "a delivery that faults stores nothing"
        return fault.value.event.vector, fault.value.event.error_code


# --- 32-bit protected mode


def test_interrupt_gate_same_level() -> None:
    w = World()
    w.gate(GP)
    after = w.deliver(Event(GP, 0x50))
    assert (after.rip, after.cs.selector, after.gpr[Reg.RSP]) == (HANDLER, CODE, USER_STACK - 16)
    assert w.vcpu.stack(after.gpr[Reg.RSP], 4, 4) == [0x50, RIP, CODE, 2 | IF | TF | NT | RF]
    assert after.rflags == 2


def test_trap_gate_leaves_interrupts_on() -> None:
    w = World()
    w.gate(0x80, kind=0xF)
    after = w.deliver(Event(0x80, software=True, next_rip=RIP + 2))
    assert after.rflags == 2 | IF
    assert w.vcpu.stack(after.gpr[Reg.RSP], 4, 3) == [RIP + 2, CODE, 2 | IF | TF | NT]


@pytest.mark.parametrize(("event", "resumes"), [(Event(GP, 0), True), (Event(3, software=True, next_rip=RIP + 1), False)])
def test_rf_in_the_frame_is_a_faults(event: Event, resumes: bool) -> None:
    """Also if this CPU still holds an IRET's RF from before the instruction."""
    world = World()
    world.gate(event.vector)
    world.state.rflags |= RF
    after = world.deliver(event)
    assert bool(world.vcpu.stack(after.gpr[Reg.RSP], 4, 4)[3 if resumes else 2] & RF) is resumes


def test_sixteen_bit_gate_pushes_words() -> None:
    w = World()
    w.gate(UD, kind=0x6)
    after = w.deliver(Event(UD))
    assert after.gpr[Reg.RSP] == USER_STACK - 6
    assert w.vcpu.stack(after.gpr[Reg.RSP], 2, 3) == [RIP, CODE, 2 | IF | TF | NT]


def test_sixteen_bit_stack_moves_only_sp() -> None:
    w = World()
    w.gate(UD)
    w.state.set_segments({Seg.SS: w.state.ss._replace(attr=0x93, limit=0xFFFF)})
    w.state.gpr[Reg.RSP] = 0x7FFF0000 | USER_STACK
    after = w.deliver(Event(UD))
    assert after.gpr[Reg.RSP] == 0x7FFF0000 | USER_STACK - 12


def test_from_ring_3_the_stack_comes_from_the_tss() -> None:
    w = World(user=True)
    w.gate(PF)
    after = w.deliver(Event(PF, 7, cr2=0x1234))
    assert (after.cpl, after.cs.selector, after.ss.selector, after.gpr[Reg.RSP]) == (0, CODE, DATA, KERNEL_STACK - 24)
    assert w.vcpu.stack(after.gpr[Reg.RSP], 4, 6) == [7, RIP, USER_CODE, 2 | IF | TF | NT | RF, USER_STACK, USER_DATA]


def test_from_ring_3_with_a_sixteen_bit_tss() -> None:
    w = World(user=True)
    w.gate(DE)
    w.state.system = w.state.system._replace(tr=Segment(0x40, 0x83, 0x2B, TSS))
    struct.pack_into("<HH", w.vcpu.ram, TSS + 2, KERNEL_STACK, DATA)
    assert w.deliver(Event(DE)).gpr[Reg.RSP] == KERNEL_STACK - 20


def test_conforming_handler_stays_in_ring_3() -> None:
    w = World(user=True)
    w.gate(DE, selector=CONFORMING)
    after = w.deliver(Event(DE))
    assert (after.cpl, after.cs.selector, after.ss.selector) == (3, CONFORMING | 3, USER_DATA)


def test_virtual_8086_pushes_all_segments() -> None:
    w = World(user=True)
    w.gate(GP)
    w.state.rflags |= VM
    for index, selector in ((Seg.ES, 0x1111), (Seg.DS, 0x2222), (Seg.FS, 0x3333), (Seg.GS, 0x4444), (Seg.SS, 0x600)):
        w.state.set_segments({index: Segment(selector, 0xF3, 0xFFFF, selector << 4)})
    after = w.deliver(Event(GP, 0))
    pushed = w.vcpu.stack(after.gpr[Reg.RSP], 4, 10)
    assert pushed[4:] == [USER_STACK, 0x600, 0x1111, 0x2222, 0x3333, 0x4444]
    assert pushed[3] & VM
    assert not after.rflags & VM
    assert [after.system.segments[i].selector for i in (Seg.ES, Seg.DS, Seg.FS, Seg.GS)] == [0] * 4


def test_handler_segment_from_the_ldt() -> None:
    w = World()
    w.gate(UD, selector=0x0C)
    struct.pack_into("<Q", w.vcpu.ram, LDT + 8, 0x40CF9A000000FFFF & ~(0x40 << 56) | 0x12 << 16)
    w.state.system = w.state.system._replace(ldtr=Segment(0x48, 0x82, 0xF, LDT))
    after = w.deliver(Event(UD))
    assert (after.cs.selector, after.cs.base) == (0x0C, 0x12)
    assert w.vcpu.ram[LDT + 13] & 1, "the CPU sets the accessed bit"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: None, (GP, UD << 3 | 3)),  # no gate at all: a bad type
        (lambda w: w.gate(UD, kind=0xC), (GP, UD << 3 | 3)),
        (lambda w: w.gate(UD, present=False), (NP, UD << 3 | 3)),
        (lambda w: w.gate(UD, selector=0), (GP, 1)),
        (lambda w: w.gate(UD, selector=DATA), (GP, DATA | 1)),
        (lambda w: w.gate(UD, selector=0x400), (GP, 0x401)),
        (lambda w: w.gate(UD, selector=USER_CODE & ~3), (GP, USER_CODE & ~3 | 1)),  # less privileged
        (lambda w: (w.gate(UD), struct.pack_into("<Q", w.vcpu.ram, GDT + CODE, 0x00CF1B000000FFFF)), (NP, CODE | 1)),
        (lambda w: setattr(w.state, "system", w.state.system._replace(idtr=Table(IDT, UD * 8 + 6))), (GP, UD << 3 | 3)),
    ],
)
def test_bad_gates(change: Any, expected: tuple[int, int]) -> None:
    w = World()
    change(w)
    assert w.fault(Event(UD)) == expected


def test_software_interrupt_needs_the_gates_privilege() -> None:
    w = World(user=True)
    w.gate(0x80)
    assert w.fault(Event(0x80, software=True, next_rip=RIP + 2)) == (GP, 0x80 << 3 | 2)
    w.gate(BP, dpl=3)
    assert w.deliver(Event(BP, software=True, next_rip=RIP + 1)).cpl == 0


@pytest.mark.parametrize(
    ("selector", "expected"), [(0, (TS, 1)), (USER_DATA, (TS, USER_DATA & ~3 | 1)), (CODE, (TS, CODE | 1)), (0x200, (TS, 0x201))]
)
def test_bad_stack_segments(selector: int, expected: tuple[int, int]) -> None:
    w = World(user=True)
    w.gate(UD)
    struct.pack_into("<I", w.vcpu.ram, TSS + 8, selector)
    assert w.fault(Event(UD)) == expected


def test_stack_not_present_and_tss_too_short() -> None:
    w = World(user=True)
    w.gate(UD)
    struct.pack_into("<Q", w.vcpu.ram, GDT + DATA, 0x00CF13000000FFFF)
    assert w.fault(Event(UD)) == (SS, DATA | 1)
    w.state.system = w.state.system._replace(tr=Segment(0x40, 0x8B, 6, TSS))
    assert w.fault(Event(UD)) == (TS, 0x41)


def test_stack_limit() -> None:
    w = World()
    w.gate(UD)
    w.state.gpr[Reg.RSP] = 8
    w.state.set_segments({Seg.SS: w.state.ss._replace(limit=0xFFFFF)})
    assert w.fault(Event(UD))[0] == SS
    w.state.set_segments({Seg.SS: w.state.ss._replace(attr=0xC97, limit=USER_STACK)})  # expand-down: the limit is the bottom
    w.state.gpr[Reg.RSP] = USER_STACK + 8
    assert w.fault(Event(UD))[0] == SS


@pytest.mark.parametrize(("page", "code"), [(IDT, 0), (GDT, 0), (USER_STACK - 1, 2)])
def test_page_faults_of_a_delivery(page: int, code: int) -> None:
    w = World()
    w.gate(UD)
    w.vcpu.absent = {page >> 12}
    assert w.fault(Event(UD)) == (PF, code)


def test_a_frame_across_an_absent_page_stores_nothing() -> None:
    w = World()
    w.gate(UD)
    w.state.gpr[Reg.RSP] = 0x6008
    w.vcpu.absent = {5}
    assert w.fault(Event(UD)) == (PF, 2)


def test_a_task_gate_tells_where_it_leads() -> None:
    w = World()
    w.gate(DF, kind=0x5)
    with pytest.raises(TaskGate, match="task gate to 0x8"):
        w.deliver(Event(DF))


# --- long mode


def test_long_mode_aligns_and_always_pushes_the_stack() -> None:
    w = World(long=True)
    w.gate(PF)
    w.state.gpr[Reg.RSP] = USER_STACK - 5
    after = w.deliver(Event(PF, 2, cr2=0x1000))
    assert after.gpr[Reg.RSP] == (USER_STACK - 5 & ~15) - 48
    assert w.vcpu.stack(after.gpr[Reg.RSP], 8, 6) == [2, RIP, CODE_64, 2 | IF | TF | NT | RF, USER_STACK - 5, DATA]


def test_long_mode_from_ring_3_loads_a_null_stack_segment() -> None:
    w = World(long=True, user=True)
    w.gate(GP)
    after = w.deliver(Event(GP, 0))
    assert (after.cpl, after.ss, after.gpr[Reg.RSP]) == (0, Segment(0, 0, 0, 0), KERNEL_STACK - 48)
    assert w.vcpu.stack(after.gpr[Reg.RSP], 8, 6)[1:] == [RIP, USER_64, 2 | IF | TF | NT | RF, USER_STACK, USER_DATA]


def test_interrupt_stack_table() -> None:
    w = World(long=True)
    w.gate(DF, ist=2)
    struct.pack_into("<Q", w.vcpu.ram, TSS + 0x24 + 8, KERNEL_STACK + 0x808)
    assert w.deliver(Event(DF)).gpr[Reg.RSP] == KERNEL_STACK + 0x800 - 48


def test_long_mode_handlers_must_be_64_bit() -> None:
    w = World(long=True)
    w.gate(UD, selector=CODE)
    assert w.fault(Event(UD)) == (GP, CODE | 1)
    w.gate(UD, kind=0x6)
    assert w.fault(Event(UD)) == (GP, UD << 3 | 3)


def test_stack_pointer_must_be_canonical() -> None:
    w = World(long=True)
    w.gate(UD)
    w.state.gpr[Reg.RSP] = 1 << 47 | 0x1000
    assert w.fault(Event(UD))[0] == SS


# --- real mode


def test_real_mode_vector_table() -> None:
    w = World()
    struct.pack_into("<HH", w.vcpu.ram, 4 * UD, 0x0123, 0x0456)
    w.state.system = w.state.system._replace(idtr=Table(0, 0x3FF))
    w.state.set_segments({
        Seg.CS: Segment(0x800, 0x9B, 0xFFFF, 0x8000),
        Seg.SS: Segment(0, 0x93, 0xFFFF, 0),
    })  # fmt: skip
    w.state.rip = 0x123
    w.state.gpr[Reg.RSP] = 0x10000
    after = deliver(w.state, 0, 0, w.memory, Event(UD))
    assert (after.rip, after.cs.selector, after.cs.base, after.gpr[Reg.RSP]) == (0x123, 0x456, 0x4560, 0x1FFFA)
    assert w.vcpu.stack(0xFFFA, 2, 3) == [0x123, 0x800, 2 | IF | TF | NT]
    assert after.rflags == 2 | NT


def test_real_mode_pushes_no_error_code_and_checks_the_limit() -> None:
    w = World()
    w.state.system = w.state.system._replace(idtr=Table(0, 0x3FF))
    w.state.set_segments({Seg.SS: Segment(0, 0x93, 0xFFFF, 0)})
    assert deliver(w.state, 0, 0, w.memory, Event(GP, 0x33)).gpr[Reg.RSP] == USER_STACK - 6
    w.state.system = w.state.system._replace(idtr=Table(0, 4 * GP + 2))
    with pytest.raises(GuestFault, match="#GP"):
        deliver(w.state, 0, 0, w.memory, Event(GP))


# --- events that meet. SDM vol. 3 table 6-5


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        (UD, PF, PF),
        (UD, GP, GP),
        (GP, GP, DF),
        (GP, NP, DF),
        (GP, PF, PF),
        (PF, PF, DF),
        (PF, GP, DF),
        (PF, UD, UD),
        (DE, TS, DF),
        (TS, UD, UD),
    ],
)
def test_second_event(first: int, second: int, result: int) -> None:
    assert second_event(Event(first), Event(second)).vector == result


def test_second_event_of_a_software_interrupt_is_delivered_itself() -> None:
    assert second_event(Event(14, software=True), Event(PF)).vector == PF


def test_a_fault_in_a_double_fault_shuts_down() -> None:
    with pytest.raises(TripleFaultDelivery, match="#PF during the delivery of a double fault"):
        second_event(Event(DF), Event(PF))
