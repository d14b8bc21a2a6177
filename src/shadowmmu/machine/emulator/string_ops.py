# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of the string instructions. A repeated one does a bounded number of iterations, then the guest runs again."""

from collections.abc import Callable

from iced_x86 import Mnemonic

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import set_general
from shadowmmu.machine.emulator.emulation import Emulation, NotEmulated, handles
from shadowmmu.machine.emulator.vector_ops import move_vector
from shadowmmu.machine.memory.linear_memory import READ, WRITE, GuestFault
from shadowmmu.machine.seam import Ports, Reg

MAX_ITERATIONS = 16
"""Iterations of one step: more would keep the guest from running on natively once a table is no longer shadowed."""


def _stos(e: Emulation) -> bool:
    e.memory.store(e.locate(0, WRITE), e.value(1))
    return True


def _lods(e: Emulation) -> bool:
    e.set_register(0, e.load(1))
    return True


def _movs(e: Emulation) -> bool:
    source, target = e.locate(1, READ), e.locate(0, WRITE)
    e.memory.store(target, e.memory.load(source))
    return True


def _ports(e: Emulation) -> Ports:
    """Those that may be reached without asking: in ring 0, of a guest whose accesses nobody intercepts."""
    ports = e.cpu.open_ports
    if ports is None or e.state.cpl:
        raise NotEmulated
    return ports


def _ins(e: Emulation) -> bool:
    ports, target = _ports(e), e.locate(0, WRITE)  # which may fault, so before the device is read
    e.memory.store(target, ports.read(e.value(1), e.size(0)))
    return True


def _outs(e: Emulation) -> bool:
    _ports(e).write(e.value(0), e.size(1), e.load(1))
    return True


def _compare(e: Emulation) -> bool:
    """SCAS and CMPS; False ends the repetition."""
    first, second = e.load(0), e.load(1)
    e.set_flags(alu.sub(first, second, 8 * e.size(0), e.state.rflags)[1])
    return bool(e.state.rflags & alu.ZF) == (not e.instruction.has_repne_prefix)


def _repeat(e: Emulation, iteration: Callable[[Emulation], bool]) -> None:
    state, size = e.state, e.address_size()
    repeated = e.instruction.has_rep_prefix or e.instruction.has_repne_prefix
    width = e.size(1 if e.instruction.mnemonic in _OUTPUT else 0)
    pointers = [pointer for pointer in map(e.string_pointer, range(e.instruction.op_count)) if pointer is not None]
    step = -width if state.rflags & alu.DF else width
    behind = state.rip
    count = state.gpr[Reg.RCX] & alu.mask(8 * size) if repeated else 1
    done, going = 0, True
    while count and going and done < MAX_ITERATIONS:
        try:
            going = iteration(e)
        except GuestFault:
            if not done:
                raise
            break
        for pointer in pointers:
            set_general(state, pointer, size, state.gpr[pointer] + step)
        count -= 1
        done += 1
        if repeated:
            set_general(state, Reg.RCX, size, count)
    state.rip = behind if not count or not going else e.instruction.ip


_OUTPUT = frozenset((Mnemonic.OUTSB, Mnemonic.OUTSW, Mnemonic.OUTSD))
_STRINGS: dict[int, Callable[[Emulation], bool]] = {
    Mnemonic.STOSB: _stos, Mnemonic.STOSW: _stos, Mnemonic.STOSD: _stos, Mnemonic.STOSQ: _stos,
    Mnemonic.LODSB: _lods, Mnemonic.LODSW: _lods, Mnemonic.LODSD: _lods, Mnemonic.LODSQ: _lods,
    Mnemonic.MOVSB: _movs, Mnemonic.MOVSW: _movs, Mnemonic.MOVSD: _movs, Mnemonic.MOVSQ: _movs,
    Mnemonic.INSB: _ins, Mnemonic.INSW: _ins, Mnemonic.INSD: _ins,
    Mnemonic.OUTSB: _outs, Mnemonic.OUTSW: _outs, Mnemonic.OUTSD: _outs,
    Mnemonic.SCASB: _compare, Mnemonic.SCASW: _compare, Mnemonic.SCASD: _compare, Mnemonic.SCASQ: _compare,
    Mnemonic.CMPSB: _compare, Mnemonic.CMPSW: _compare, Mnemonic.CMPSD: _compare, Mnemonic.CMPSQ: _compare,
}  # fmt: skip


@handles(*_STRINGS)
def _string(e: Emulation) -> None:
    if e.memory_operand() is None:
        _repeat(e, _STRINGS[e.instruction.mnemonic])
    elif e.instruction.mnemonic == Mnemonic.MOVSD:
        move_vector(e)  # SSE has one of the same name
    else:
        raise NotEmulated
