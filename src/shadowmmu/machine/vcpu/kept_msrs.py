# SPDX-License-Identifier: GPL-2.0-only
"""Registers that mean nothing to this machine: they keep what is legally written, or only read as zero.

Memory types, machine checks, records of branches, what firmware sets up, and the old performance counters, which AMD's
processors have whatever CPUID says. Sources: APM vol. 2 sections 7.7, 9.3 and 13.2; SDM vol. 3 section 16.3; as KVM does it
(kvm_set_msr_common).
"""

from shadowmmu.machine.seam import MASK64

MCE_BANKS = 10
_MCG_CAP, _MCG_STATUS, _MCG_CTL, _BANKS = 0x179, 0x17A, 0x17B, 0x400
_CAPABILITIES = 1 << 24 | 1 << 8 | MCE_BANKS  # software error recovery, MCG_CTL
_MISC_ENABLE, _MISC_ENABLE_RESET, _MISC_ENABLE_READ_ONLY = 0x1A0, 1, 0x1880
_MTRR_CAP, _MTRR_DEFAULT = 0xFE, 0x2FF
_VARIABLE_MTRRS = 8
_FIXED_MTRRS = (0x250, 0x258, 0x259, *range(0x268, 0x270))
_OLD_COUNTERS = range(0xC0010000, 0xC0010008)
_AMD_CONFIGURATION = (0xC001001F, 0xC001102A, 0xC0011022, 0xC0011023, 0xC001102C)
"""NB_CFG, BU_CFG2, DC_CFG, TW_CFG, EX_CFG: zero, whatever is written."""
_DEBUG_CONTROL, _DEBUG_CONTROL_KNOWN = 0x1D9, 0x3F
_AMD_STATE = (0xC0010010, 0xC0010055, 0xC0010058, 0xC0010112, 0xC0010113)
"""SYSCFG, INT_PENDING_MSG, MMIO_CONF_BASE, TSEG's address and mask."""
_LAST_BRANCHES = range(0x1DB, 0x1DF)
_CONTROL, _STATUS = 0, 1


def _initial() -> dict[int, int]:
    kept = dict.fromkeys((_MTRR_DEFAULT, *_FIXED_MTRRS, *range(0x200, 0x200 + 2 * _VARIABLE_MTRRS)), 0)
    kept |= dict.fromkeys(range(_BANKS, _BANKS + 4 * MCE_BANKS), 0)
    kept |= dict.fromkeys(range(_BANKS, _BANKS + 4 * MCE_BANKS, 4), MASK64)
    kept |= dict.fromkeys((*_OLD_COUNTERS, *_AMD_CONFIGURATION), 0)
    return kept | {_MISC_ENABLE: _MISC_ENABLE_RESET, _MCG_STATUS: 0, _MCG_CTL: MASK64, _DEBUG_CONTROL: 0}


_READ_ONLY = {_MCG_CAP: _CAPABILITIES, _MTRR_CAP: 0x500 | _VARIABLE_MTRRS, **dict.fromkeys((*_LAST_BRANCHES, *_AMD_STATE), 0)}


class KeptMsrs:
    """Of one vCPU."""

    def __init__(self) -> None:
        self._values = _initial()

    def has(self, index: int) -> bool:
        return index in self._values or index in _READ_ONLY

    def allows(self, index: int, value: int | None = None) -> bool:
        """It can be read, or have this value written."""
        if value is None:
            return True
        if index in _READ_ONLY or (index == _DEBUG_CONTROL and value & ~_DEBUG_CONTROL_KNOWN):
            return False
        return not _BANKS <= index < _BANKS + 4 * MCE_BANKS or _bank_allows(index - _BANKS & 3, value)

    def read(self, index: int) -> int:
        return _READ_ONLY[index] if index in _READ_ONLY else self._values[index]

    def write(self, index: int, value: int) -> bool:
        """What it allows."""
        if index in _OLD_COUNTERS or index in _AMD_CONFIGURATION:
            return True  # there is nothing behind them
        if index == _MISC_ENABLE:
            value = value & ~_MISC_ENABLE_READ_ONLY | self._values[index] & _MISC_ENABLE_READ_ONLY
        self._values[index] = value
        return True


def _bank_allows(register: int, value: int) -> bool:
    """A bank's control is all zeroes or all ones, but for what Linux quirks set; its status can only be cleared."""
    if register == _CONTROL:
        return value in (0, MASK64) or value | 1 << 10 | 1 == MASK64
    return register != _STATUS or not value
