# SPDX-License-Identifier: GPL-2.0-only
"""Hypercalls, on the small PC.

VMMCALL is the processor's own instruction. VMCALL is Intel's: as KVM does, it is made a VMMCALL where it stands.
"""

from iced_x86 import Mnemonic

from shadowmmu.machine.memory.linear_memory import USER, WRITE, GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import Reg, State
from shadowmmu.machine.vcpu.hypercalls import answer
from shadowmmu.machine.vcpu.processor import Processor

_VMMCALL = bytes.fromhex("0f01d9")


def hypercall(p: Processor, state: State) -> None:
    assert p.apic is not None
    state.gpr[Reg.RAX] = answer(p.apic, state.gpr, state.cpl, long=state.cs.long)
    p.advance(state)


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
