# SPDX-License-Identifier: GPL-2.0-only
"""Which exits of L2 are L1's. Sources: APM vol. 2 sections 15.7 to 15.12, and appendix C.

Page faults of shadow paging and nested page faults are the engine's first; what it gives up comes back as an event or
as L1's nested fault. Exceptions are asked for where they are raised, SVM's own instructions where they are checked.
Decode assists are not offered, so EXITINFO1 of most exits is zero.
"""

from typing import NamedTuple

from iced_x86 import Instruction, Mnemonic

from shadowmmu.engine.face.types import GuestMemoryError
from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.memory.linear_memory import Event, NestedFault
from shadowmmu.machine.seam import MASK32, Exit, ExitKind, Reg
from shadowmmu.machine.svm.world_switch import vmexit
from shadowmmu.machine.vcpu.pending import Origin, Pending
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.svm_state import SvmState
from shadowmmu.x86.vectors import BP, OF
from shadowmmu.x86.vmcb import Intercept1, IoInfo, SvmExit

_PLAIN = frozenset(
    (
        ExitKind.INTERRUPT_WINDOW,
        ExitKind.IRET,
        ExitKind.DEBUG_REGISTER,
        ExitKind.TABLE_LOAD,
        ExitKind.INVLPG,
        ExitKind.CPUID,
        ExitKind.RDPMC,
        ExitKind.HLT,
        ExitKind.PAUSE,
        ExitKind.CACHE,
        ExitKind.SHUTDOWN,
        ExitKind.INTERCEPTED,
    )
)
"""Kinds whose `Exit.number` is the exit code."""
_MSR_RANGES = (0x0, 0xC0000000, 0xC0010000)  # 2 KiB of the permission map each
_MSRS_OF_A_RANGE = 0x2000
_STRING = frozenset((Mnemonic.INSB, Mnemonic.INSW, Mnemonic.INSD, Mnemonic.OUTSB, Mnemonic.OUTSW, Mnemonic.OUTSD))
_INS = frozenset((Mnemonic.INSB, Mnemonic.INSW, Mnemonic.INSD))
_IN = _INS | {Mnemonic.IN}


class Reflected(NamedTuple):
    """An exit for L1."""

    code: int
    info_1: int = 0
    info_2: int = 0


def exit_name(code: int) -> str:
    """An exit code in words: one of `SvmExit`, with the register or vector where it is one of a range."""
    for first in (SvmExit.CR_READ, SvmExit.CR_WRITE, SvmExit.DR_READ, SvmExit.DR_WRITE):
        if first <= code < first + 16:
            which, _, access = first.name.partition("_")
            return f"{which}{code - int(first)} {access.lower()}"
    if SvmExit.EXCEPTION <= code < SvmExit.INTR:
        return Event(code - SvmExit.EXCEPTION).name
    try:
        return str(SvmExit(code).name).lower().replace("_", " ")
    except ValueError:
        return f"exit {code:#x}"


def reflect(p: Processor, exit_: Exit) -> bool:
    """Give an exit of L2 to L1, if L1 wants it."""
    reflected = None if p.nested is None else _for_l1(p, p.nested, exit_)
    if reflected is None:
        return False
    vmexit(p, *reflected)
    return True


def takes_event(p: Processor, pending: Pending, interrupted: Event | None = None) -> bool:
    """Give an exception of L2 to L1, if L1 intercepts it; `interrupted` is the event whose delivery raised it."""
    event, code = pending.event, SvmExit.EXCEPTION + pending.event.vector
    if p.nested is None or pending.origin is Origin.VMRUN or not event.is_exception or not p.nested.wants(code):
        return False
    error_code = event.error_code if event.pushes_error_code else 0
    vmexit(p, code, error_code, event.cr2 or 0, interrupted, at_entry=pending.origin is Origin.KVM)
    return True


def leave_by(p: Processor, fault: NestedFault, interrupted: Event | None = None) -> None:
    """L1's nested tables do not allow what L2 does."""
    if not fault.reported:
        p.vcpu.inject()
    vmexit(p, SvmExit.NESTED_PAGE_FAULT, fault.code, fault.gpa, interrupted)


def shut_down(p: Processor, reason: str, *, at_entry: bool = True) -> None:
    """The CPU can go on no longer; of L2 that is L1's affair, if it wants to know. `at_entry`: KVM finds it, on the way into L2."""
    if p.nested is not None and p.nested.wants(SvmExit.SHUTDOWN):
        vmexit(p, SvmExit.SHUTDOWN, at_entry=at_entry)
    else:
        p.stop(reason, at_entry=at_entry)


def _for_l1(p: Processor, nested: SvmState, exit_: Exit) -> Reflected | None:
    """What L1 is told of this exit of L2; None: it did not ask for it."""
    kind = exit_.kind
    if kind is ExitKind.PORT:
        return _port(p, exit_)
    if kind is ExitKind.MSR:
        return Reflected(SvmExit.MSR, exit_.number) if _wants_msr(p, nested, exit_.number) else None
    code = _exit_code(p, exit_)
    return Reflected(code) if code is not None and nested.wants(code) else None


def _exit_code(p: Processor, exit_: Exit) -> int | None:
    """The code of an exit that carries nothing else; None: L1 is asked elsewhere."""
    kind = exit_.kind
    if kind is ExitKind.CR_READ:
        return int(SvmExit.CR_READ) + exit_.number
    if kind is ExitKind.CR_WRITE:
        return int(SvmExit.CR_WRITE) + exit_.number
    if kind is ExitKind.SOFTWARE_INTERRUPT:
        return _software_interrupt(p)
    if kind is ExitKind.RDTSC:
        return _time_stamp(p)
    return exit_.number if kind in _PLAIN else None


def _time_stamp(p: Processor) -> int | None:
    """RDTSCP that is not offered is none."""
    if p.fetcher.decode(p.capture()).mnemonic != Mnemonic.RDTSCP:
        return int(SvmExit.RDTSC)
    return int(SvmExit.RDTSCP) if p.cpuid.offers("rdtscp") else None


def _software_interrupt(p: Processor) -> int:
    """INT3 and INTO are intercepted as their exceptions."""
    vector = {Mnemonic.INT3: BP, Mnemonic.INTO: OF}.get(p.fetcher.decode(p.capture()).mnemonic)
    return int(SvmExit.SOFTWARE_INTERRUPT) if vector is None else SvmExit.EXCEPTION + vector


def _map_bits(p: Processor, at: int, shift: int, mask: int) -> bool:
    """Bits of one of L1's permission maps; a map without memory intercepts everything."""
    try:
        return bool(int.from_bytes(p.vcpu.vm.read_guest(at, 2), "little") >> shift & mask)
    except GuestMemoryError:
        return True


def _wants_msr(p: Processor, nested: SvmState, write: int) -> bool:
    """By the MSR permission map, two bits a register: read, write. APM vol. 2 section 15.11."""
    if not nested.asked.first & Intercept1.MSR:
        return False
    index = p.capture().gpr[Reg.RCX] & MASK32
    for number, start in enumerate(_MSR_RANGES):
        if start <= index < start + _MSRS_OF_A_RANGE:
            bit = 2 * (index - start) + write
            return _map_bits(p, nested.msrpm_base + 0x800 * number + bit // 8, bit % 8, 1)
    return True


def wants_port(p: Processor, nested: SvmState, port: int, size: int) -> bool:
    """By the I/O permission map, a bit a port. APM vol. 2 section 15.10.1."""
    if not nested.asked.first & Intercept1.IOIO:
        return False
    return _map_bits(p, nested.iopm_base + port // 8, port % 8, (1 << size) - 1)


def _port(p: Processor, exit_: Exit) -> Reflected:
    """EXITINFO1 describes the access; EXITINFO2 is where the next instruction is. APM vol. 2 section 15.10.2."""
    state = p.capture()
    instruction: Instruction = p.fetcher.decode(state)
    info = exit_.number << IoInfo.PORT_SHIFT | exit_.error_code * IoInfo.SIZE_8
    if instruction.mnemonic in _IN:
        info |= IoInfo.IN
    operands = Operands(instruction, state, p.vcpu.efer)
    if instruction.mnemonic in _STRING:
        segment = 0 if instruction.mnemonic in _INS else operands.segment(instruction.memory_segment)
        address = operands.address_size()
        info |= IoInfo.STRING | address // 2 * IoInfo.ADDRESS_16 | segment << IoInfo.SEGMENT_SHIFT
        info |= IoInfo.REP if instruction.has_rep_prefix or instruction.has_repne_prefix else 0
    else:
        info |= operands.mode // 16 * IoInfo.ADDRESS_16
    return Reflected(SvmExit.IOIO, info, p.next_rip(state))
