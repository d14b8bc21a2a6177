# SPDX-License-Identifier: GPL-2.0-only
"""What hypercalls come to on the small PC: KVM's, as far as a guest may use them unasked. Source: Linux,
Documentation/virt/kvm/x86/hypercalls.rst.
"""

from collections.abc import Sequence

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.seam import MASK32, MASK64, Reg

_POLL_INTERRUPTS, _KICK, _SEND_IPI, _YIELD = 1, 5, 10, 11
_NOT_PERMITTED, _UNKNOWN = -1, -1000
_SETS = 64
"""Bits of one of the two sets of APICs that an IPI goes to."""


def answer(apic: LocalApic, gpr: Sequence[int], cpl: int, *, long: bool) -> int:
    """The result, for RAX: the number is in RAX, arguments in RBX, RCX, RDX, RSI."""
    mask = MASK64 if long else MASK32
    return (_NOT_PERMITTED if cpl else _call(apic, [value & mask for value in gpr], mask)) & mask


def _call(apic: LocalApic, gpr: list[int], mask: int) -> int:
    number = gpr[Reg.RAX]
    if number in (_POLL_INTERRUPTS, _KICK, _YIELD):
        return 0
    if number == _SEND_IPI:
        targets = gpr[Reg.RBX] | gpr[Reg.RCX] << mask.bit_length()
        return apic.send_to_set(targets << gpr[Reg.RDX], gpr[Reg.RSI]) if gpr[Reg.RDX] < _SETS else 0
    return _UNKNOWN
