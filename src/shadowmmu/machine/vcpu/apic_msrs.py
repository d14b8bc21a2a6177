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
from shadowmmu.machine.seam import MASK32
from shadowmmu.machine.vcpu.svm_state import SvmState
from shadowmmu.x86.msr import APIC_BASE, TSC_DEADLINE

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
    """Of one vCPU with physical addresses of `width` bits; `x2apic`, `deadline`: CPUID offers them. `svm` has its time-stamp counter's
    offset."""

    def __init__(self, apic: LocalApic, svm: SvmState, width: int, *, x2apic: bool, deadline: bool) -> None:
        self._apic, self._svm = apic, svm
        self._base_known = (1 << width) - 0x1000 | BASE_BSP | BASE_ENABLED | (BASE_X2APIC if x2apic else 0)
        self._plain = frozenset((APIC_BASE, TSC_DEADLINE) if deadline else (APIC_BASE,))

    def has(self, index: int) -> bool:
        return index in self._plain or X2APIC_MSR <= index < X2APIC_MSR_END

    def allows(self, index: int, value: int | None = None) -> bool:
        """It can be read, or have this value written. Registers the APIC has only as an x2APIC; APIC_BASE has a say of its own."""
        if index == APIC_BASE:
            return value is None or not value & ~self._base_known
        if index == TSC_DEADLINE:
            return True
        offset = _offset(index)
        if not self._apic.x2apic or offset not in (_READABLE if value is None else _WRITABLE):
            return False
        return value is None or _holds(offset, value)

    def read(self, index: int) -> int:
        """What it allows; so does `write`."""
        if index == APIC_BASE:
            return self._apic.base
        if index == TSC_DEADLINE:
            return self._apic.timer.tsc_deadline
        offset = _offset(index)
        return self._apic.icr if offset == ApicReg.ICR else self._apic.read_register(offset)

    def write(self, index: int, value: int) -> bool:
        """False: there is no such change of mode."""
        if index == APIC_BASE:
            return self._apic.set_base(value)
        if index == TSC_DEADLINE:
            self._apic.timer.set_deadline(value, self._svm.tsc_offset)
        elif _offset(index) == ApicReg.ICR:
            self._apic.send(value)
        else:
            self._apic.write_register(_offset(index), value)
        return True


def _offset(index: int) -> int:
    """Of the register."""
    return index - X2APIC_MSR << 4


def _holds(offset: int, value: int) -> bool:
    """The register can be written with it."""
    if offset == ApicReg.ICR:
        return not value & _ICR_RESERVED
    return value <= MASK32 and not (offset in _ONLY_ZERO and value) and (offset != ApicReg.SELF_IPI or value <= 0xFF)
