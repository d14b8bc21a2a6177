"""Faults that come too early: this CPU translates straight-line code ahead of itself, into the next page.

If that page cannot be fetched the fault is raised before the instructions in front of it are done, with the RIP of the
first of them. A real CPU raises it at the instruction that needs the page. So the CPU is run again, up to that one.
"""

from contextlib import suppress

from iced_x86 import Code, Decoder

from shadowmmu.machine.cpu import Cpu, Exit, ExitKind, State
from shadowmmu.machine.decode import MAX_LENGTH, Fetcher, bitness
from shadowmmu.machine.memory import PAGE_SIZE, GuestFault, NestedFault, NoMemory
from shadowmmu.x86.pferr import Pferr

_FETCH = int(Pferr.FETCH)


def run_exactly(cpu: Cpu, fetcher: Fetcher) -> Exit:
    """Run the guest until it exits, at the instruction that does."""
    exit_ = cpu.run()
    if exit_.kind is not ExitKind.PAGE_FAULT or not exit_.error_code & _FETCH:
        return exit_
    stop = _instruction_in_need(fetcher, cpu.state(), exit_.gva)
    if stop is None:
        return exit_
    exit_ = cpu.run(stop)
    cpu.all_code_changed()  # what is translated ends there
    arrived = exit_.kind is ExitKind.HLT and _linear(fetcher, cpu.state()) == stop
    return cpu.run() if arrived else exit_


def _linear(fetcher: Fetcher, state: State) -> int:
    base = 0 if bitness(state, fetcher.memory.vcpu.efer) == 64 else state.cs.base
    return base + state.rip & fetcher.memory.mask


def _instruction_in_need(fetcher: Fetcher, state: State, fault: int) -> int | None:
    """Linear address of the first instruction that reaches the page of `fault`; None: it is the one at RIP."""
    rip, page = _linear(fetcher, state), fault & -PAGE_SIZE
    if rip & -PAGE_SIZE != page - PAGE_SIZE:
        return None
    mode, at = bitness(state, fetcher.memory.vcpu.efer), rip
    with suppress(GuestFault, NestedFault, NoMemory):
        while at < page:
            code = fetcher.memory.fetch(at, min(MAX_LENGTH, page - at), state.cpl == 3)
            instruction = Decoder(mode, code, ip=at).decode()
            if instruction.code == Code.INVALID:
                break
            at = instruction.next_ip
    return None if at == rip else at
