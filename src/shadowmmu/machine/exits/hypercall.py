# SPDX-License-Identifier: GPL-2.0-only
"""Hypercalls, on the small PC: KVM's, as far as a guest may use them unasked. Source: Linux, Documentation/virt/kvm/x86/hypercalls.rst.

VMMCALL is the processor's own instruction. VMCALL is Intel's: as KVM does, it is made a VMMCALL where it stands.
"""

from iced_x86 import Mnemonic

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.memory.linear_memory import USER, WRITE, GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import MASK32, MASK64, Reg, State
from shadowmmu.machine.vcpu.processor import Processor

_VMMCALL = bytes.fromhex("0f01d9")
_POLL_INTERRUPTS, _KICK, _SEND_IPI, _YIELD = 1, 5, 10, 11
_NOT_PERMITTED, _UNKNOWN = -1, -1000
_SETS = 64
"""Bits of one of the two sets of APICs that an IPI goes to."""


def hypercall(p: Processor, state: State) -> None:
    """Number in RAX, arguments in RBX, RCX, RDX, RSI; the result goes to RAX."""
    assert p.apic is not None
    mask = MASK64 if state.cs.long else MASK32
    result = _NOT_PERMITTED if state.cpl else _call(p.apic, [value & mask for value in state.gpr], mask)
    state.gpr[Reg.RAX] = result & mask
    p.advance(state)


def _call(apic: LocalApic, gpr: list[int], mask: int) -> int:
    number = gpr[Reg.RAX]
    if number in (_POLL_INTERRUPTS, _KICK, _YIELD):
        return 0
    if number == _SEND_IPI:
        targets = gpr[Reg.RBX] | gpr[Reg.RCX] << mask.bit_length()
        return apic.send_to_set(targets << gpr[Reg.RDX], gpr[Reg.RSI]) if gpr[Reg.RDX] < _SETS else 0
    return _UNKNOWN


def mends_vmcall(p: Processor, state: State) -> bool:
    """An undefined instruction was VMCALL, and is VMMCALL now. Raises GuestFault if it cannot be written."""
    try:
        instruction = p.fetcher.decode(state)
    except (GuestFault, NestedFault, NoMemory):
        return False
    if p.apic is None or p.nested is not None or instruction.mnemonic != Mnemonic.VMCALL:
        return False
    start = state.rip if state.cs.long else state.cs.base + state.rip
    access = WRITE | (USER if state.cpl == 3 else 0)
    p.memory.store(p.memory.locate(start, len(_VMMCALL), access), int.from_bytes(_VMMCALL, "little"))
    p.cpu.all_code_changed()
    return True
