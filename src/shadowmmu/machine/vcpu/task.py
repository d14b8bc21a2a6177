# SPDX-License-Identifier: GPL-2.0-only
"""Task switches by hardware: the old task into its TSS, the new one out of its own. Source: SDM vol. 3 chapter 8.

Those of a task gate in the IDT are done here whole. JMP, CALL and IRET the CPU does itself up to where it loads CR3, which
with shadow paging is not the guest's to load; from there on the new task is loaded anew (`exits.task_switch`).
"""

from typing import NamedTuple

from shadowmmu.machine.memory.descriptors import BUSY, LDT, SYSTEM_TYPE, TSS_16, TSS_32, NoDescriptor, mark, read_descriptor
from shadowmmu.machine.memory.linear_memory import SYSTEM, USER, WRITE, GuestFault, GuestMemory
from shadowmmu.machine.seam import MASK32, Reg, Seg, Segment, State
from shadowmmu.x86.control import Rflags
from shadowmmu.x86.vectors import GP, NP, SS, TS
from shadowmmu.x86.vmcb import Attr

_WIDE = 0x8
_ORDER = (Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS)
_VM = int(Rflags.VM)
_REAL_CODE, _REAL_DATA = 0x0FB, 0x0F3


class Layout(NamedTuple):
    """A TSS: bytes of a field, offset of the first that a switch stores and how many they are, the least limit, offset of the LDT."""

    width: int
    start: int
    stored: int
    last: int
    ldt: int


_LAYOUT_16, _LAYOUT_32 = Layout(2, 14, 12, 0x2B, 42), Layout(4, 32, 16, 0x67, 96)
_CR3 = 28


class NewTask(NamedTuple):
    """What a TSS holds."""

    cr3: int | None
    """None: a 16-bit TSS has none."""
    rip: int
    rflags: int
    gpr: list[int]
    selectors: list[int]
    ldt: int


def _layout(tr: Segment) -> Layout:
    return _LAYOUT_32 if tr.attr & _WIDE else _LAYOUT_16


def enter_by_gate(memory: GuestMemory, state: State, selector: int, return_rip: int) -> Segment:
    """Leave the old task for the one that a task gate names, nested in it; the TSS that TR holds from now on.

    Raises GuestFault where the old task is still whole.
    """
    try:
        if selector & 4 or not selector & 0xFFFC:
            raise NoDescriptor
        tss, address = read_descriptor(memory, state, selector)
    except NoDescriptor:
        raise GuestFault(GP, selector & 0xFFFC | 1) from None
    if tss.attr & SYSTEM_TYPE not in (TSS_16, TSS_32):
        raise GuestFault(GP, selector & 0xFFFC | 1)
    if not tss.attr & Attr.PRESENT:
        raise GuestFault(NP, selector & 0xFFFC | 1)
    if tss.limit < _layout(tss).last:
        raise GuestFault(TS, selector & 0xFFFC | 1)
    _save_task(memory, state, return_rip)
    memory.store(memory.locate(tss.base, 2, SYSTEM | WRITE), state.system.tr.selector)
    return mark(memory, tss, address, BUSY)


def _save_task(memory: GuestMemory, state: State, rip: int) -> None:
    tr = state.system.tr
    width, start, stored, _, _ = _layout(tr)
    values = [rip, state.rflags, *state.gpr[:8], *(state.system.segments[which].selector for which in _ORDER)][:stored]
    for number, value in enumerate(values):
        place = memory.locate(tr.base + start + width * number, width, SYSTEM | WRITE)
        memory.store(place, value & (1 << 8 * width) - 1)


def read_task(memory: GuestMemory, tr: Segment) -> NewTask:
    """What the TSS in TR holds."""
    width, start, stored, _, ldt = _layout(tr)

    def field(at: int) -> int:
        return memory.read(tr.base + at, width, SYSTEM)

    rip, rflags, *rest = (field(start + width * number) for number in range(stored))
    gpr = [value | (0 if width == 4 else 0xFFFF0000) for value in rest[:8]]
    selectors = [value & 0xFFFF for value in rest[8:]] + [0] * (len(_ORDER) - len(rest[8:]))
    cr3 = field(_CR3) if width == 4 else None
    return NewTask(cr3, rip, rflags & MASK32, gpr, selectors, field(ldt) & 0xFFFF)


def load_task(memory: GuestMemory, state: State, task: NewTask, tr: Segment, nested: int) -> State:
    """The new task's registers. `nested`: EFLAGS.NT, or 0. Raises GuestFault in the new task, with nothing loaded."""
    state = state.copy()
    state.rip, state.rflags = task.rip, task.rflags | nested | Rflags.FIXED
    state.gpr[:8] = task.gpr
    state.system = state.system._replace(tr=tr, ldtr=_ldt(memory, state, task.ldt))
    if state.rflags & _VM:
        state.set_segments({which: Segment(selector, _REAL_CODE if which is Seg.CS else _REAL_DATA, 0xFFFF, selector << 4)
                            for which, selector in zip(_ORDER, task.selectors, strict=True)})  # fmt: skip
        state.system = state.system._replace(cpl=3)
        return state
    cpl = task.selectors[Seg.CS] & 3
    state.set_segments({which: _segment(memory, state, which, selector, cpl)
                        for which, selector in zip(_ORDER, task.selectors, strict=True)})  # fmt: skip
    state.system = state.system._replace(cpl=cpl, dr7=state.system.dr7 & ~0x155)  # local breakpoints are the old task's
    return state


def _ldt(memory: GuestMemory, state: State, selector: int) -> Segment:
    if not selector & 0xFFFC:
        return Segment(selector, 0, 0, 0)
    try:
        found, _ = read_descriptor(memory, state, selector & ~4)
    except NoDescriptor:
        raise GuestFault(TS, selector & 0xFFFC) from None
    if selector & 4 or found.attr & SYSTEM_TYPE != LDT or not found.attr & Attr.PRESENT:
        raise GuestFault(TS, selector & 0xFFFC)
    return found


def _segment(memory: GuestMemory, state: State, which: Seg, selector: int, cpl: int) -> Segment:
    """By the rules of a task switch, which raise #TS. SDM vol. 3 table 8-1."""
    if not selector & 0xFFFC:
        if which in (Seg.CS, Seg.SS):
            raise GuestFault(TS, 0)
        return Segment(selector, 0, 0, 0)
    try:
        found, address = read_descriptor(memory, state, selector)
    except NoDescriptor:
        raise GuestFault(TS, selector & 0xFFFC) from None
    if not _is_loadable(which, found, cpl):
        raise GuestFault(TS, selector & 0xFFFC)
    if not found.attr & Attr.PRESENT:
        raise GuestFault(SS if which is Seg.SS else NP, selector & 0xFFFC)
    return mark(memory, found, address, Attr.ACCESSED)


def _is_loadable(which: Seg, found: Segment, cpl: int) -> bool:
    code, writable = bool(found.attr & Attr.CODE), bool(found.attr & Attr.WRITABLE)
    if not found.attr & Attr.NON_SYSTEM:
        return False
    if which is Seg.CS:
        return code and (found.dpl == cpl or bool(found.attr & Attr.EXPAND_DOWN and found.dpl <= cpl))
    if which is Seg.SS:
        return not code and writable and found.dpl == cpl and found.selector & 3 == cpl
    return not code or writable


def push_error_code(memory: GuestMemory, state: State, error_code: int) -> None:
    """On the new task's stack, as wide as its TSS."""
    width = _layout(state.system.tr).width
    mask = MASK32 if state.ss.big else 0xFFFF
    pointer = state.gpr[Reg.RSP] - width & mask
    access = WRITE | (USER if state.cpl == 3 else 0)
    memory.store(memory.locate(state.ss.base + pointer, width, access), error_code)
    state.gpr[Reg.RSP] = state.gpr[Reg.RSP] & ~mask | pointer
