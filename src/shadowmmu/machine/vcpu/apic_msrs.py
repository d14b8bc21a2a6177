# SPDX-License-Identifier: GPL-2.0-only
"""The local APIC as MSRs: APIC_BASE, the deadline of its timer, and all its registers as an x2APIC. Source: SDM vol. 3 section 11.12."""

from shadowmmu.machine.devices.apic_registers import (
    BASE_BSP,
    BASE_ENABLED,
    BASE_X2APIC,
    LVT_WRITABLE,
    X2APIC_MSR,
    X2APIC_MSR_END,
    ApicReg,
)
from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.memory.linear_memory import GuestFault
from shadowmmu.machine.seam import MASK32
from shadowmmu.x86.msr import APIC_BASE, TSC_DEADLINE
from shadowmmu.x86.vectors import GP

_BIT_VECTORS = frozenset(at + 0x10 * i for at in (ApicReg.ISR, ApicReg.TMR, ApicReg.IRR) for i in range(8))
_READ_WRITE = frozenset(
    (ApicReg.TPR, ApicReg.SPURIOUS, ApicReg.ESR, ApicReg.ICR, ApicReg.TIMER_INITIAL, ApicReg.TIMER_DIVIDE, *LVT_WRITABLE)
)
_READABLE = _READ_WRITE | _BIT_VECTORS | {ApicReg.ID, ApicReg.VERSION, ApicReg.PPR, ApicReg.LDR, ApicReg.TIMER_CURRENT}
_WRITABLE = _READ_WRITE | {ApicReg.EOI, ApicReg.SELF_IPI}
_ONLY_ZERO = frozenset((ApicReg.EOI, ApicReg.ESR))
_ICR_RESERVED = 0xFFF32000
"""Bits 31:20, 17:16 and 13 of ICR."""


class ApicMsrs:
    """Of one vCPU with physical addresses of `width` bits; `x2apic`, `deadline`: CPUID offers them."""

    def __init__(self, apic: LocalApic, width: int, *, x2apic: bool, deadline: bool) -> None:
        self._apic = apic
        self._base_known = (1 << width) - 0x1000 | BASE_BSP | BASE_ENABLED | (BASE_X2APIC if x2apic else 0)
        self._plain = frozenset((APIC_BASE, TSC_DEADLINE) if deadline else (APIC_BASE,))

    def has(self, index: int) -> bool:
        return index in self._plain or X2APIC_MSR <= index < X2APIC_MSR_END

    def read(self, index: int) -> int:
        """Raises GuestFault for one that cannot be read."""
        if index == APIC_BASE:
            return self._apic.base
        if index == TSC_DEADLINE:
            return self._apic.timer.tsc_deadline
        offset = self._offset(index, _READABLE)
        return self._apic.icr if offset == ApicReg.ICR else self._apic.read_register(offset)

    def write(self, index: int, value: int, tsc_offset: int) -> None:
        """Raises GuestFault for one that cannot be written, or not with this value."""
        if index == APIC_BASE:
            if value & ~self._base_known or not self._apic.set_base(value):
                raise GuestFault(GP)
        elif index == TSC_DEADLINE:
            self._apic.timer.set_deadline(value, tsc_offset)
        else:
            self._write_register(self._offset(index, _WRITABLE), value)

    def _offset(self, index: int, known: frozenset[int]) -> int:
        """Of the register, which the APIC has only as an x2APIC."""
        offset = index - X2APIC_MSR << 4
        if not self._apic.x2apic or offset not in known:
            raise GuestFault(GP)
        return offset

    def _write_register(self, offset: int, value: int) -> None:
        if offset == ApicReg.ICR:
            if value & _ICR_RESERVED:
                raise GuestFault(GP)
            self._apic.send(value)
            return
        if value > MASK32 or (offset in _ONLY_ZERO and value) or (offset == ApicReg.SELF_IPI and value > 0xFF):
            raise GuestFault(GP)
        self._apic.write_register(offset, value)
