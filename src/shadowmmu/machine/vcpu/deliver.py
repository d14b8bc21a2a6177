# SPDX-License-Identifier: GPL-2.0-only
"""Delivery of exceptions and software interrupts through the guest's IDT: real, virtual-8086, protected and long mode.

Rules: SDM vol. 3 chapter 6 (6.12-6.14) and section 20.1.4; APM vol. 2 chapter 8. `deliver` works on a copy: if the
delivery itself faults, it raises GuestFault and nothing has changed. A task
gate ends it: `TaskGate` tells where it leads.
"""

from typing import NamedTuple

from shadowmmu.machine.memory.descriptors import NoDescriptor, read_descriptor
from shadowmmu.machine.memory.linear_memory import READ, SYSTEM, USER, WRITE, Event, GuestFault, GuestMemory, Span
from shadowmmu.machine.seam import MASK32, MASK64, Reg, Seg, Segment, State
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.vectors import AC, BR, DE, DF, GP, MF, NM, NP, PF, SS, TS, UD, XF
from shadowmmu.x86.vmcb import Attr

_CONTRIBUTORY = frozenset((DE, TS, NP, SS, GP))
_FAULTS = frozenset((DE, BR, UD, NM, TS, NP, SS, GP, PF, MF, AC, XF))
"""Exceptions that return to the instruction that raised them; EFLAGS.RF is set in the frame."""
_GATE_16, _GATE_TRAP_16, _GATE_32, _GATE_TRAP_32, _GATE_TASK = 0x6, 0x7, 0xE, 0xF, 0x5
_LEGACY_GATES = frozenset((_GATE_16, _GATE_TRAP_16, _GATE_32, _GATE_TRAP_32, _GATE_TASK))
_IST_OFFSET = 0x24
# Plain integers: an enumeration's operators are too slow for every delivery.
_PE, _LMA = int(Cr0.PE), int(Efer.LMA)
_RF, _VM, _IF, _FIXED = int(Rflags.RF), int(Rflags.VM), int(Rflags.INTR), int(Rflags.FIXED)
_TRAP_CLEARS = int(Rflags.TF | Rflags.NT | Rflags.RF | Rflags.VM)
_REAL_CLEARS = int(Rflags.INTR | Rflags.TF | Rflags.AC | Rflags.RF)


class TaskSwitch(Exception):
    """L2 switches tasks by hardware, which this machine does not do."""


class TaskGate(Exception):
    """The event goes through a task gate to the task of this TSS."""

    def __init__(self, selector: int) -> None:
        super().__init__(f"task gate to {selector:#x}")
        self.selector = selector


class TripleFaultDelivery(Exception):
    """A fault during the delivery of a double fault: the CPU shuts down."""


class Gate(NamedTuple):
    offset: int
    selector: int
    kind: int
    dpl: int
    ist: int

    @property
    def masks_interrupts(self) -> bool:
        return self.kind in (_GATE_16, _GATE_32)

    @property
    def width(self) -> int:
        """Bytes of a value on the stack, outside long mode."""
        return 2 if self.kind in (_GATE_16, _GATE_TRAP_16) else 4


def second_event(first: Event, second: Event) -> Event:
    """What a fault during the delivery of `first` becomes. SDM vol. 3 table 6-5."""
    if first.vector == DF and first.is_exception:
        raise TripleFaultDelivery(f"{second.name} during the delivery of a double fault")
    serious = second.vector in _CONTRIBUTORY or second.vector == PF
    if not first.is_exception or not serious:
        return second
    if first.vector == PF or (first.vector in _CONTRIBUTORY and second.vector in _CONTRIBUTORY):
        return Event(DF)
    return second


class Delivery:
    """One event on its way. `cr0` and `efer` are those the guest believes in."""

    def __init__(self, state: State, cr0: int, efer: int, memory: GuestMemory, event: Event) -> None:
        self.state = state.copy()
        self.memory = memory
        self.event = event
        self.real = not cr0 & _PE
        self.long = bool(efer & _LMA)
        self.v86 = bool(state.rflags & _VM) and not self.real
        self.external = 0 if event.software else 1  # EXT bit of error codes
        self.stores: list[tuple[Span, int]] = []

    def run(self) -> State:
        """The state in the first instruction of the handler."""
        if self.real:
            self._real_mode()
        else:
            self._gated(self._gate())
        for span, value in self.stores:
            self.memory.store(span, value)
        return self.state

    # --- common parts

    def _return_rip(self) -> int:
        return self.state.rip if self.event.next_rip is None else self.event.next_rip

    def _frame_flags(self) -> int:
        """RF is set for a fault; behind an instruction it is clear, also where this CPU lets an IRET's go on to the end of a block."""
        if self.event.vector in _FAULTS and self.event.is_exception:
            return self.state.rflags | _RF
        return self.state.rflags if self.event.next_rip is None else self.state.rflags & ~_RF

    def _fault(self, vector: int, selector: int) -> GuestFault:
        return GuestFault(vector, (selector & 0xFFFC) | self.external)

    def _idt_fault(self, vector: int = GP) -> GuestFault:
        return GuestFault(vector, self.event.vector << 3 | 2 | self.external)

    def _enter(self, segment: Segment, rip: int, clear: int) -> None:
        self.state.set_segments({Seg.CS: segment})
        self.state.rip = rip
        self.state.rflags = self.state.rflags & ~clear | _FIXED

    # --- real mode

    def _real_mode(self) -> None:
        state, idtr = self.state, self.state.system.idtr
        at = 4 * self.event.vector
        if at + 3 > idtr.limit:
            raise GuestFault(GP)
        target = self.memory.read(idtr.base + at, 4, SYSTEM)
        stack = _Stack(self, state.ss, state.gpr[Reg.RSP], 2, READ)
        for value in (self._frame_flags() & ~_RF, state.cs.selector, self._return_rip()):
            stack.push(value)
        stack.commit()
        selector = target >> 16
        self._enter(state.cs._replace(selector=selector, base=selector << 4), target & 0xFFFF, _REAL_CLEARS)

    # --- protected and long mode

    def _gate(self) -> Gate:
        idtr, size = self.state.system.idtr, 16 if self.long else 8
        at = self.event.vector * size
        if at + size - 1 > idtr.limit:
            raise self._idt_fault()
        raw = self.memory.read(idtr.base + at, size, SYSTEM)
        gate = Gate(raw & 0xFFFF | raw >> 32 & 0xFFFF0000, raw >> 16 & 0xFFFF, raw >> 40 & 0x1F, raw >> 45 & 3, raw >> 32 & 7)
        if self.long:
            gate = gate._replace(offset=gate.offset | (raw >> 64 & MASK32) << 32)
        if gate.kind not in ((_GATE_32, _GATE_TRAP_32) if self.long else _LEGACY_GATES):
            raise self._idt_fault()
        if self.event.software and gate.dpl < self.state.cpl:
            raise self._idt_fault()
        if not raw >> 47 & 1:
            raise self._idt_fault(NP)
        if gate.kind == _GATE_TASK:
            raise TaskGate(gate.selector)
        return gate

    def _descriptor(self, selector: int, vector: int) -> tuple[Segment, int]:
        """The segment a selector names, and the linear address of its descriptor."""
        try:
            return read_descriptor(self.memory, self.state, selector)
        except NoDescriptor:
            raise self._fault(vector, selector) from None

    def _code_segment(self, selector: int) -> tuple[Segment, int]:
        """The handler's code segment and its privilege level. SDM vol. 3 section 6.12.1.1."""
        if not selector & 0xFFFC:
            raise self._fault(GP, 0)
        segment, address = self._descriptor(selector, GP)
        is_code = segment.attr & (Attr.NON_SYSTEM | Attr.CODE) == Attr.NON_SYSTEM | Attr.CODE
        if not is_code or segment.dpl > self.state.cpl or (self.long and (not segment.long or segment.big)):
            raise self._fault(GP, selector)
        if not segment.attr & Attr.PRESENT:
            raise self._fault(NP, selector)
        cpl = self.state.cpl if segment.attr & Attr.EXPAND_DOWN else segment.dpl
        if self.v86 and cpl:
            raise self._fault(GP, selector)
        self._mark_accessed(segment, address)
        return segment._replace(selector=selector & ~3 | cpl, attr=segment.attr | Attr.ACCESSED), cpl

    def _mark_accessed(self, segment: Segment, address: int) -> None:
        if not segment.attr & Attr.ACCESSED:
            self.stores.append((self.memory.locate(address + 5, 1, SYSTEM | WRITE), segment.attr & 0xFF | Attr.ACCESSED))

    def _gated(self, gate: Gate) -> None:
        segment, cpl = self._code_segment(gate.selector)
        if self.long:
            self._long_frame(gate, cpl)
            offset = gate.offset & MASK64
        else:
            self._legacy_frame(gate, cpl)
            offset = gate.offset if gate.width == 4 else gate.offset & 0xFFFF
        self.state.system = self.state.system._replace(cpl=cpl)
        clear = _TRAP_CLEARS | (_IF if gate.masks_interrupts else 0)
        self._enter(segment, offset, clear)

    def _error_codes(self) -> tuple[int, ...]:
        return (self.event.error_code,) if self.event.pushes_error_code else ()

    # --- stacks

    def _tss_read(self, offset: int, size: int) -> int:
        tr = self.state.system.tr
        if offset + size - 1 > tr.limit:
            raise self._fault(TS, tr.selector)
        return self.memory.read(tr.base + offset, size, SYSTEM)

    def _long_frame(self, gate: Gate, cpl: int) -> None:
        state = self.state
        inner = cpl != state.cpl
        if gate.ist:
            rsp = self._tss_read(_IST_OFFSET + 8 * (gate.ist - 1), 8)
        elif inner:
            rsp = self._tss_read(4 + 8 * cpl, 8)
        else:
            rsp = state.gpr[Reg.RSP]
        flat = Segment(0, Attr.PRESENT | Attr.NON_SYSTEM | Attr.WRITABLE | Attr.BIG, MASK64, 0)
        stack = _Stack(self, flat, rsp & ~0xF, 8, USER if cpl == 3 else READ)
        for value in (
            state.ss.selector,
            state.gpr[Reg.RSP],
            self._frame_flags(),
            state.cs.selector,
            self._return_rip(),
            *self._error_codes(),
        ):
            stack.push(value)
        stack.commit()
        if inner:
            state.set_segments({Seg.SS: Segment(cpl, cpl << 5, 0, 0)})  # a null selector

    def _legacy_frame(self, gate: Gate, cpl: int) -> None:
        state, old = self.state, self.state.copy()
        user = USER if cpl == 3 else READ
        if cpl == old.cpl and not self.v86:
            stack = _Stack(self, old.ss, old.gpr[Reg.RSP], gate.width, user)
        else:
            segment, esp = self._inner_stack(cpl)
            stack = _Stack(self, segment, esp, gate.width, user)
            if self.v86:
                for register in (Seg.GS, Seg.FS, Seg.DS, Seg.ES):
                    stack.push(old.system.segments[register].selector)
                state.set_segments(dict.fromkeys((Seg.GS, Seg.FS, Seg.DS, Seg.ES), Segment(0, 0, 0, 0)))
            stack.push(old.ss.selector)
            stack.push(old.gpr[Reg.RSP])
            state.set_segments({Seg.SS: segment})
        for value in (self._frame_flags(), old.cs.selector, self._return_rip(), *self._error_codes()):
            stack.push(value)
        stack.commit()

    def _inner_stack(self, cpl: int) -> tuple[Segment, int]:
        """The stack for a more privileged level, from a 16- or 32-bit TSS. SDM vol. 3 section 6.12.1."""
        width = 4 if self.state.system.tr.attr & 8 else 2
        at = width + 2 * width * cpl
        esp = self._tss_read(at, width)
        selector = self._tss_read(at + width, 2)
        if not selector & 0xFFFC:
            raise self._fault(TS, 0)
        segment, address = self._descriptor(selector, TS)
        kind = segment.attr & (Attr.NON_SYSTEM | Attr.CODE | Attr.WRITABLE)
        if selector & 3 != cpl or segment.dpl != cpl or kind != Attr.NON_SYSTEM | Attr.WRITABLE:
            raise self._fault(TS, selector)
        if not segment.attr & Attr.PRESENT:
            raise self._fault(SS, selector)
        self._mark_accessed(segment, address)
        return segment._replace(attr=segment.attr | Attr.ACCESSED), esp


class _Stack:
    """Pushes of a delivery: located one by one, stored only at the end."""

    def __init__(self, delivery: Delivery, segment: Segment, pointer: int, width: int, user: int) -> None:
        self.delivery, self.segment, self.pointer, self.width = delivery, segment, pointer, width
        self.access = user | WRITE
        self.mask = MASK64 if width == 8 else MASK32 if segment.big else 0xFFFF

    def push(self, value: int) -> None:
        self.pointer = self.pointer & ~self.mask | (self.pointer - self.width) & self.mask
        offset = self.pointer & self.mask
        if not self._within(offset):
            raise self.delivery._fault(SS, self.segment.selector if self.segment is not self.delivery.state.ss else 0)
        span = self.delivery.memory.locate(self.segment.base + offset, self.width, self.access)
        self.delivery.stores.append((span, value & (1 << 8 * self.width) - 1))

    def _within(self, offset: int) -> bool:
        """Inside the segment's limit; in long mode: canonical."""
        if self.width == 8:
            return self.delivery.memory.canonical(offset)
        end = offset + self.width - 1
        if self.segment.attr & (Attr.CODE | Attr.EXPAND_DOWN) == Attr.EXPAND_DOWN:
            return self.segment.limit < offset and end <= self.mask
        return end <= self.segment.limit

    def commit(self) -> None:
        gpr = self.delivery.state.gpr
        gpr[Reg.RSP] = self.pointer & self.mask if self.width == 8 or self.segment.big else gpr[Reg.RSP] & ~0xFFFF | self.pointer & 0xFFFF


def deliver(state: State, cr0: int, efer: int, memory: GuestMemory, event: Event) -> State:
    """The state at the handler's first instruction; raises GuestFault if the delivery faults."""
    return Delivery(state, cr0, efer, memory, event).run()
