# SPDX-License-Identifier: GPL-2.0-only
"""Register writes that a CPU refuses with #GP, by the manuals, whatever the tables are: no list of them, but whether one is."""

from shadowmmu.check.fuzz.draw import Draw
from shadowmmu.hardware.walk import CR0_PG, CR4_LA57, CR4_PAE, CR4_PCIDE, CR4_PKE, EFER_LME, EFER_NXE, bits

CR0_PE, CR0_NW, CR0_CD = 1, 1 << 29, 1 << 30
CR4_UNKNOWN = bits(63, 32) | 1 << 15 | 1 << 19  # no CPU that is modelled here has a meaning for these
CR4_NOT_OFFERED = CR4_PKE  # by Linux to a guest under shadow paging (kvm_set_cpu_caps)
EFER_UNKNOWN = bits(63, 32) | bits(7, 1) | 1 << 9

Registers = tuple[int, int, int, int]  # CR0, CR3, CR4, EFER


def is_refused(number: int, value: int, now: Registers, maxphyaddr: int) -> bool:
    """A write of `value` to register `number` of `now`. SDM 2.5 (the registers), 4.1.2 (modes), 4.10.1 (PCIDs)."""
    cr0, cr3, cr4, efer = now
    paging, long = bool(cr0 & CR0_PG), bool(cr0 & CR0_PG and efer & EFER_LME)
    if number == 0:
        without_pae = bool(value & CR0_PG and not paging and efer & EFER_LME and not cr4 & CR4_PAE)
        return _is_bad_cr0(value) or without_pae or bool(not value & CR0_PG and cr4 & CR4_PCIDE)
    if number == 1:
        return bool(long and value & bits(62, maxphyaddr))
    if number == 2:
        turns_pcids_on = bool(value & ~cr4 & CR4_PCIDE)
        without = long and (not value & CR4_PAE or bool((value ^ cr4) & CR4_LA57))
        return bool(value & (CR4_UNKNOWN | CR4_NOT_OFFERED)) or without or (turns_pcids_on and (not long or bool(cr3 & 0xFFF)))
    return bool(value & EFER_UNKNOWN) or (paging and bool((value ^ efer) & EFER_LME))


def _is_bad_cr0(value: int) -> bool:
    return bool(value >> 32 or (value & CR0_NW and not value & CR0_CD) or (value & CR0_PG and not value & CR0_PE))


def invent(random: Draw, now: Registers, maxphyaddr: int) -> tuple[int, int]:
    """A register and a value for it, near what it has, that may well be refused."""
    cr0, cr3, cr4, efer = now
    beyond = 1 << random.between(maxphyaddr, 52)
    return random.choice(
        (
            (0, cr0 ^ CR0_PG), (0, cr0 | CR0_NW), (0, cr0 & ~CR0_PE), (0, cr0 | 1 << random.between(32, 64)),
            (1, cr3 | beyond), (1, beyond),
            (2, cr4 ^ CR4_PAE), (2, cr4 ^ CR4_LA57), (2, cr4 ^ CR4_PCIDE), (2, cr4 ^ CR4_PKE), (2, cr4 | 1 << random.between(32, 64)),
            (3, efer ^ EFER_LME), (3, efer | 1 << random.between(32, 64)), (3, (efer ^ EFER_NXE) | 2),
        )
    )  # fmt: skip
