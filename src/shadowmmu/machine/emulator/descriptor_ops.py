# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of LGDT, LIDT, LTR and LLDT. Source: APM vol. 3 chapter 4; of bases, SDM vol. 3 section 3.3.7.1."""

from iced_x86 import Code, Mnemonic

from shadowmmu.machine.emulator.emulation import Emulation, handles
from shadowmmu.machine.memory.descriptors import BUSY, LDT, SYSTEM_TYPE, TSS_16, TSS_32, NoDescriptor, mark, read_descriptor
from shadowmmu.machine.memory.linear_memory import GuestFault
from shadowmmu.machine.seam import MASK64, Segment, Table
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.vectors import GP, NP, UD
from shadowmmu.x86.vmcb import Attr

_MASK24 = (1 << 24) - 1
_SHORT = frozenset((Code.LGDT_M1632_16, Code.LIDT_M1632_16))


def _selector(e: Emulation) -> int:
    if not e.memory.vcpu.cr0 & Cr0.PE or e.state.rflags & Rflags.VM:
        raise GuestFault(UD)
    if e.state.cpl:
        raise GuestFault(GP)
    return e.load(0) & 0xFFFF


def _system_segment(e: Emulation, selector: int, kinds: tuple[int, ...]) -> tuple[Segment, int]:
    """One of the GDT, of one of these kinds."""
    try:
        if selector & 4:
            raise NoDescriptor
        found, address = read_descriptor(e.memory, e.state, selector, wide=bool(e.memory.vcpu.efer & Efer.LMA))
    except NoDescriptor:
        raise GuestFault(GP, selector & 0xFFFC) from None
    if found.attr & SYSTEM_TYPE not in kinds:
        raise GuestFault(GP, selector & 0xFFFC)
    if not found.attr & Attr.PRESENT:
        raise GuestFault(NP, selector & 0xFFFC)
    if e.memory.vcpu.efer & Efer.LMA and not e.memory.can_be_base(found.base):
        raise GuestFault(GP, selector & 0xFFFC)
    return found, address


def _table(e: Emulation) -> Table:
    """Limit and base in memory; with 16-bit operands the base has 24 bits."""
    if e.state.cpl:
        raise GuestFault(GP)
    raw = e.load(0)
    table = Table(raw >> 16 & (_MASK24 if e.instruction.code in _SHORT else MASK64), raw & 0xFFFF)
    if e.mode == 64 and not e.memory.can_be_base(table.base):
        raise GuestFault(GP)
    return table


@handles(Mnemonic.LGDT)
def _lgdt(e: Emulation) -> None:
    e.state.system = e.state.system._replace(gdtr=_table(e))


@handles(Mnemonic.LIDT)
def _lidt(e: Emulation) -> None:
    e.state.system = e.state.system._replace(idtr=_table(e))


@handles(Mnemonic.LTR)
def _ltr(e: Emulation) -> None:
    selector = _selector(e)
    if not selector & 0xFFFC:
        raise GuestFault(GP)
    kinds = (TSS_32,) if e.memory.vcpu.efer & Efer.LMA else (TSS_16, TSS_32)
    found, address = _system_segment(e, selector, kinds)
    e.state.system = e.state.system._replace(tr=mark(e.memory, found, address, BUSY))


@handles(Mnemonic.LLDT)
def _lldt(e: Emulation) -> None:
    selector = _selector(e)
    found = Segment(selector, 0, 0, 0) if not selector & 0xFFFC else _system_segment(e, selector, (LDT,))[0]
    e.state.system = e.state.system._replace(ldtr=found)
