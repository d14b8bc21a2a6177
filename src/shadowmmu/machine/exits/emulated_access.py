# SPDX-License-Identifier: GPL-2.0-only
"""An access that the engine cannot let the CPU do: the instruction is done for the guest (KVM: x86_emulate_instruction)."""

from shadowmmu.machine.emulator.decode import UnemulatedInstruction
from shadowmmu.machine.memory.linear_memory import WRITE, GuestFault, NoMemory
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.vectors import UD

_UNPROTECT_LIMIT = 3  # times the same instruction may be let off emulation in a row


def emulate(p: Processor, address: int) -> None:
    """Do the instruction at RIP for its access to `address`, which is linear, or with nested paging physical for the guest that runs."""
    p.witness.emulates(address)
    state = p.capture()
    p.emulated += 1
    try:
        after = p.emulator.step(state)
    except UnemulatedInstruction as end:
        if not _let_cpu_do_it(p, state.rip, address):
            _give_up(p, end)
    except NoMemory as end:
        _give_up(p, UnemulatedInstruction(state.rip, b"", f"(code at guest physical {end}, where there is no memory)"))
    else:
        p.complete(after)


def _give_up(p: Processor, end: UnemulatedInstruction) -> None:
    """L2 cannot stop the machine: it gets #UD (KVM: handle_emulation_failure)."""
    if p.nested is not None:
        raise GuestFault(UD) from None
    raise end from None


def _let_cpu_do_it(p: Processor, rip: int, address: int) -> bool:
    """KVM's way out (reexecute_instruction): stop shadowing the table that is written, so that the CPU can do the store itself.

    Not if it is needed for the store: the next fault would shadow it again.
    """
    vcpu = p.vcpu
    if vcpu.writes_own_table or not p.lets_off(rip, address, _UNPROTECT_LIMIT):
        return False
    gpa = vcpu.translate_gpa(address, WRITE) if vcpu.vm.tdp else vcpu.gva_to_gpa(address, WRITE)
    if gpa is None or vcpu.read_emulated(gpa, 1) is None:
        return False
    p.unprotected += 1
    vcpu.vm.unprotect_page(gpa >> 12)
    return True
