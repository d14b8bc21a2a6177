# SPDX-License-Identifier: GPL-2.0-only
"""L1's VMCB as Python values: the control area, the state save area, events. Layout: `x86.vmcb`."""

import struct
from typing import NamedTuple

from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import MASK32, Intercepts, Segment, Table
from shadowmmu.x86.vmcb import EventInj, EventType, Vmcb

_SEGMENT = struct.Struct("<HHIQ")
_TYPE_SHIFT, _VALID, _HAS_ERROR_CODE = int(EventInj.TYPE_SHIFT), int(EventInj.VALID), int(EventInj.HAS_ERROR_CODE)


class Control(NamedTuple):
    """What L1 asks of VMRUN. Addresses are L1 physical."""

    intercepts: Intercepts
    iopm_base: int
    msrpm_base: int
    tsc_offset: int
    asid: int
    tlb_control: int
    v_intr: int
    interrupt_shadow: bool
    nested_paging: bool
    event_inj: int
    ncr3: int


class Save(NamedTuple):
    """The part of L2's state that VMRUN loads and #VMEXIT saves."""

    es: Segment
    cs: Segment
    ss: Segment
    ds: Segment
    gdtr: Table
    idtr: Table
    cpl: int
    efer: int
    cr4: int
    cr3: int
    cr0: int
    dr7: int
    dr6: int
    rflags: int
    rip: int
    rsp: int
    rax: int
    cr2: int
    g_pat: int


class Hidden(NamedTuple):
    """The part that VMLOAD loads and VMSAVE saves."""

    fs: Segment
    gs: Segment
    ldtr: Segment
    tr: Segment
    star: int
    lstar: int
    cstar: int
    sfmask: int
    kernel_gs_base: int
    sysenter_cs: int
    sysenter_esp: int
    sysenter_eip: int


def _u64(vmcb: bytes | bytearray, at: int) -> int:
    return int.from_bytes(vmcb[at : at + 8], "little")


def put_u64(vmcb: bytearray, at: int, value: int) -> None:
    """Write a u64 field."""
    vmcb[at : at + 8] = value.to_bytes(8, "little")


def _segment(vmcb: bytes, at: int) -> Segment:
    return Segment(*_SEGMENT.unpack_from(vmcb, at))


def _flat_segment(vmcb: bytes, at: int) -> Segment:
    """ES, CS, SS and DS have a base of 32 bits (APM vol. 2 section 15.5.1)."""
    segment = _segment(vmcb, at)
    return segment._replace(base=segment.base & MASK32)


def _table(vmcb: bytes, at: int) -> Table:
    _, _, limit, base = _SEGMENT.unpack_from(vmcb, at)
    return Table(base, limit)


def read_control(vmcb: bytes) -> Control:
    """The control area."""
    return Control(
        Intercepts(*struct.unpack_from("<4H3I", vmcb, Vmcb.CR_READ_INTERCEPTS)),
        _u64(vmcb, Vmcb.IOPM_BASE) & ~0xFFF,
        _u64(vmcb, Vmcb.MSRPM_BASE) & ~0xFFF,
        _u64(vmcb, Vmcb.TSC_OFFSET),
        struct.unpack_from("<I", vmcb, Vmcb.GUEST_ASID)[0],
        vmcb[Vmcb.TLB_CONTROL],
        _u64(vmcb, Vmcb.V_INTR),
        bool(vmcb[Vmcb.INTERRUPT_SHADOW] & 1),
        bool(vmcb[Vmcb.NESTED_PAGING] & 1),
        _u64(vmcb, Vmcb.EVENT_INJ),
        _u64(vmcb, Vmcb.N_CR3),
    )


def read_save(vmcb: bytes) -> Save:
    """The state save area, as far as VMRUN loads it."""
    words = (Vmcb.EFER, Vmcb.CR4, Vmcb.CR3, Vmcb.CR0, Vmcb.DR7, Vmcb.DR6, Vmcb.RFLAGS, Vmcb.RIP, Vmcb.RSP, Vmcb.RAX, Vmcb.CR2, Vmcb.G_PAT)
    return Save(
        _flat_segment(vmcb, Vmcb.ES),
        _flat_segment(vmcb, Vmcb.CS),
        _flat_segment(vmcb, Vmcb.SS),
        _flat_segment(vmcb, Vmcb.DS),
        _table(vmcb, Vmcb.GDTR),
        _table(vmcb, Vmcb.IDTR),
        vmcb[Vmcb.CPL] & 3,
        *(_u64(vmcb, at) for at in words),
    )


def write_save(vmcb: bytearray, save: Save) -> None:
    """What #VMEXIT leaves in the state save area."""
    for at, segment in ((Vmcb.ES, save.es), (Vmcb.CS, save.cs), (Vmcb.SS, save.ss), (Vmcb.DS, save.ds)):
        _SEGMENT.pack_into(vmcb, at, *segment)
    _SEGMENT.pack_into(vmcb, Vmcb.GDTR, 0, 0, save.gdtr.limit, save.gdtr.base)
    _SEGMENT.pack_into(vmcb, Vmcb.IDTR, 0, 0, save.idtr.limit, save.idtr.base)
    vmcb[Vmcb.CPL] = save.cpl
    for at, value in (
        (Vmcb.EFER, save.efer), (Vmcb.CR4, save.cr4), (Vmcb.CR3, save.cr3), (Vmcb.CR0, save.cr0), (Vmcb.DR7, save.dr7),
        (Vmcb.DR6, save.dr6), (Vmcb.RFLAGS, save.rflags), (Vmcb.RIP, save.rip), (Vmcb.RSP, save.rsp), (Vmcb.RAX, save.rax),
        (Vmcb.CR2, save.cr2), (Vmcb.G_PAT, save.g_pat),
    ):  # fmt: skip
        put_u64(vmcb, at, value)


_HIDDEN_WORDS = (
    Vmcb.STAR, Vmcb.LSTAR, Vmcb.CSTAR, Vmcb.SFMASK, Vmcb.KERNEL_GS_BASE, Vmcb.SYSENTER_CS, Vmcb.SYSENTER_ESP, Vmcb.SYSENTER_EIP,
)  # fmt: skip


def read_hidden(vmcb: bytes) -> Hidden:
    """What VMLOAD loads."""
    fs, gs, ldtr, tr = (_segment(vmcb, at) for at in (Vmcb.FS, Vmcb.GS, Vmcb.LDTR, Vmcb.TR))
    return Hidden(fs, gs, ldtr, tr, *(_u64(vmcb, at) for at in _HIDDEN_WORDS))


def write_hidden(vmcb: bytearray, hidden: Hidden) -> None:
    """What VMSAVE saves."""
    for at, segment in ((Vmcb.FS, hidden.fs), (Vmcb.GS, hidden.gs), (Vmcb.LDTR, hidden.ldtr), (Vmcb.TR, hidden.tr)):
        _SEGMENT.pack_into(vmcb, at, *segment)
    for at, value in zip(_HIDDEN_WORDS, hidden[4:], strict=True):
        put_u64(vmcb, at, value)


def event_info(event: Event) -> int:
    """An event as EXITINTINFO tells it."""
    kind = EventType.SOFTWARE_INTERRUPT if event.software else EventType.EXCEPTION
    if event.external:
        kind = EventType.NMI if event.is_nmi else EventType.INTERRUPT
    info: int = event.vector | kind << _TYPE_SHIFT | _VALID
    if event.pushes_error_code:
        info |= _HAS_ERROR_CODE | event.error_code << EventInj.ERROR_CODE_SHIFT
    return info


def injected_event(info: int, rip: int) -> Event | None:
    """The event that EVENTINJ asks for, to return to `rip`; None if the field is not valid."""
    if not info & _VALID:
        return None
    kind, vector = (info & EventInj.TYPE_MASK) >> _TYPE_SHIFT, info & EventInj.VECTOR
    if kind == EventType.SOFTWARE_INTERRUPT:
        return Event(vector, software=True, next_rip=rip)
    if kind == EventType.EXCEPTION:
        return Event(vector, info >> EventInj.ERROR_CODE_SHIFT & 0xFFFFFFFF)
    return Event(2 if kind == EventType.NMI else vector, external=True)
