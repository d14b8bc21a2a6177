# SPDX-License-Identifier: GPL-2.0-only
"""What the machine does at each exit. A handler raises GuestFault for an exception of the instruction that exited."""

from collections.abc import Callable, Iterator

from iced_x86 import Code, Instruction, InstructionInfoFactory, MemorySizeExt, Mnemonic

from shadowmmu.engine.face.types import Outcome
from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.exits.control_registers import read_control, write_control
from shadowmmu.machine.exits.debug_registers import debug_register
from shadowmmu.machine.exits.emulated_access import emulate
from shadowmmu.machine.exits.exceptions import exception
from shadowmmu.machine.exits.hypercall import hypercall
from shadowmmu.machine.exits.task_switch import finish_task_switch
from shadowmmu.machine.memory.fault_cause import cause_by_tables, write_fault_cause
from shadowmmu.machine.memory.guest_tables import GUEST_FINAL, GUEST_PAGE, reported_fault
from shadowmmu.machine.memory.linear_memory import Event, GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import MASK32, Exit, ExitKind, Reg, State
from shadowmmu.machine.svm.instructions import svm_instruction
from shadowmmu.machine.svm.reflect import shut_down
from shadowmmu.machine.svm.world_switch import recalc_intercepts, take_interrupt
from shadowmmu.machine.vcpu.pending import Origin
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.syscall import syscall
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.msr import TSC_AUX
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vectors import BP, GP, OF, PF, UD
from shadowmmu.x86.vmcb import SvmExit

_SMAP, _USER = int(Cr4.SMAP), int(Pferr.USER)
_WRITE = int(Pferr.WRITE)
_SOFTWARE_INTERRUPTS = frozenset((Code.INT_IMM8, Code.INT3, Code.INTO))
_OLD_COUNTERS = 4


def _page_fault(p: Processor, exit_: Exit) -> None:
    if p.vcpu.vm.tdp:
        p.queue(Event(PF, exit_.error_code, exit_.gva), Origin.CPU)  # of the guest's own tables
        return
    if p.vcpu.cr4 & _SMAP and p.capture().cpl == 3 and not exit_.error_code & _USER:
        p.vcpu.ac = False  # the CPU's own access to a descriptor table
    look = p.vcpu.page_fault if p.quick is None else p.quick.outcome
    outcome = look(exit_.gva, exit_.error_code)
    p.outcomes[outcome] += 1
    if outcome is Outcome.INJECT:
        fault = reported_fault(p.vcpu)
        p.queue(Event(PF, fault.error_code, fault.cr2))
    elif outcome is Outcome.EMULATE:
        emulate(p, exit_.gva)
    elif outcome is Outcome.FIXED and p.takes_from_user(exit_.error_code):
        p.cpu.flush_page(exit_.gva)


def _nested_page_fault(p: Processor, exit_: Exit) -> None:
    """The engine mends it, or the instruction is emulated, or L2 met L1's nested tables."""
    cause = _fault_cause(p, exit_)
    look = p.vcpu.page_fault if p.quick is None else p.quick.outcome
    outcome = look(exit_.gva, exit_.error_code | cause)
    p.outcomes[outcome] += 1
    if outcome is Outcome.INJECT:
        raise NestedFault(exit_.gva, reported_fault(p.vcpu).error_code | cause, reported=True)
    if outcome is Outcome.EMULATE:
        emulate(p, exit_.gva)


def _fault_cause(p: Processor, exit_: Exit) -> int:
    """Bit 32 or 33 of EXITINFO1."""
    if not exit_.error_code & _WRITE:
        return GUEST_FINAL
    state = p.capture()
    try:
        instruction = p.fetcher.decode(state)
    except (GuestFault, NestedFault, NoMemory):
        return GUEST_FINAL if not p.vcpu.cr0 & Cr0.PG else GUEST_PAGE  # a walk for the code itself
    cause = write_fault_cause(p.vcpu, _touched(p, state, instruction), exit_.gva)
    if cause is None:
        system = state.system
        tables = ((table.base, table.limit) for table in (system.gdtr, system.idtr, system.ldtr, system.tr))
        cause = cause_by_tables(p.vcpu, tables, exit_.gva)
    return cause


def _touched(p: Processor, state: State, instruction: Instruction) -> Iterator[int]:
    """First and last linear address of the instruction and of each of its memory operands."""
    operands = Operands(instruction, state, p.vcpu.efer)
    code = state.rip if operands.mode == 64 else state.cs.base + state.rip
    yield code & operands.mask
    yield code + instruction.len - 1 & operands.mask
    for used in InstructionInfoFactory().info(instruction).used_memory():
        first = operands.used_address(used)
        yield first
        yield first + max(MemorySizeExt.size(used.memory_size), 1) - 1 & operands.mask


def _software_interrupt(p: Processor, _exit: Exit) -> None:
    state = p.capture()
    instruction = p.fetcher.decode(state, _SOFTWARE_INTERRUPTS)
    vector = {Mnemonic.INT3: BP, Mnemonic.INTO: OF}.get(instruction.mnemonic)
    if vector is None:
        vector = instruction.immediate8
    p.queue(Event(vector, software=True, next_rip=instruction.next_ip), Origin.CPU)


def _invlpg(p: Processor, _exit: Exit) -> None:
    state = p.capture()
    instruction = p.fetcher.decode(state, (Code.INVLPG_M,))
    gva = Operands(instruction, state, p.vcpu.efer).linear(0)
    if p.memory.canonical(gva) or not p.vcpu.efer & Efer.LMA:
        p.vcpu.invlpg(gva)
    p.advance(state, instruction)


def _table_load(p: Processor, _exit: Exit) -> None:
    """LGDT, LIDT, LLDT or LTR."""
    p.complete(p.emulator.step(p.capture()))


def _cpuid(p: Processor, _exit: Exit) -> None:
    state = p.capture()
    leaf, subleaf = state.gpr[Reg.RAX] & MASK32, state.gpr[Reg.RCX] & MASK32
    if not p.cpuid.has(leaf, subleaf):
        p.memory.unclaimed.cpuid(leaf, subleaf)
    state.gpr[Reg.RAX], state.gpr[Reg.RBX], state.gpr[Reg.RCX], state.gpr[Reg.RDX] = p.cpuid.read(leaf, subleaf, p.vcpu.cr4)
    p.advance(state)


def _msr(p: Processor, exit_: Exit) -> None:
    state = p.capture()
    index, gpr = state.gpr[Reg.RCX] & MASK32, state.gpr
    if exit_.number:
        p.msrs.write(index, (gpr[Reg.RDX] & MASK32) << 32 | gpr[Reg.RAX] & MASK32, state, p.tsc)
    else:
        value = p.msrs.read(index, state, p.tsc)
        gpr[Reg.RAX], gpr[Reg.RDX] = value & MASK32, value >> 32
    p.advance(state)


def _rdtsc(p: Processor, _exit: Exit) -> None:
    state = p.capture()
    instruction = p.fetcher.decode(state, (Code.RDTSC, Code.RDTSCP))
    if instruction.code == Code.RDTSCP and not p.cpuid.offers("rdtscp"):
        raise GuestFault(UD)
    value = p.tsc + p.msrs.tsc_offset
    state.gpr[Reg.RAX], state.gpr[Reg.RDX] = value & MASK32, value >> 32 & MASK32
    if instruction.mnemonic == Mnemonic.RDTSCP:
        state.gpr[Reg.RCX] = p.msrs[TSC_AUX]
    p.advance(state, instruction)


def _rdpmc(p: Processor, _exit: Exit) -> None:
    """The four old counters are there, and count nothing."""
    state = p.capture()
    if state.gpr[Reg.RCX] & MASK32 not in range(_OLD_COUNTERS) or (state.cpl and p.vcpu.cr0 & Cr0.PE and not p.vcpu.cr4 & Cr4.PCE):
        raise GuestFault(GP)
    state.gpr[Reg.RAX] = state.gpr[Reg.RDX] = 0
    p.advance(state)


def _syscall(p: Processor, exit_: Exit) -> None:
    """The CPU stands behind the instruction."""
    state = p.capture()
    after = syscall(p.svm, state)
    if after is None:
        state.rip = exit_.gva
        p.cpu.set_state(state)
        raise GuestFault(UD)
    p.cpu.set_state(after)


def _hlt(p: Processor, _exit: Exit) -> None:
    p.halted, p.halted_at = True, p.cpu.state().rip
    if p.apic is not None:  # something may wake it
        p.advance(p.capture())
        p.halted = p.pending is None  # its own single-step trap does


def _pause(p: Processor, _exit: Exit) -> None:
    p.yielded = True
    p.advance(p.capture())


def _cache(p: Processor, _exit: Exit) -> None:
    p.advance(p.capture())


def _interrupt_window(p: Processor, _exit: Exit) -> None:
    """L1's virtual interrupt for its L2; one from outside is taken on the way back in."""
    if not p.waits_for_window and p.nested is not None:
        p.queue(take_interrupt(p, p.nested))


def _iret(p: Processor, _exit: Exit) -> None:
    """Behind it NMIs may come again."""
    p.nmi_masked, p.unmasked_at = False, p.cpu.state().rip
    recalc_intercepts(p)


def _undefined(_p: Processor, _exit: Exit) -> None:
    raise GuestFault(UD)


def _port_denied(_p: Processor, _exit: Exit) -> None:
    raise GuestFault(GP)


def _svm(p: Processor, exit_: Exit) -> None:
    """VMMCALL that L1 does not intercept is the PC's own hypercall."""
    if exit_.number == SvmExit.VMMCALL and p.apic is not None and not (p.nested is not None and p.nested.wants(exit_.number)):
        hypercall(p, p.capture())
    else:
        svm_instruction(p, exit_)


def _shutdown(p: Processor, _exit: Exit) -> None:
    shut_down(p, "the CPU shut down", at_entry=False)


Handler = Callable[[Processor, Exit], None]
HANDLERS: dict[ExitKind, Handler] = {
    ExitKind.PAGE_FAULT: _page_fault,
    ExitKind.NESTED_PAGE_FAULT: _nested_page_fault,
    ExitKind.EXCEPTION: exception,
    ExitKind.SOFTWARE_INTERRUPT: _software_interrupt,
    ExitKind.CR_READ: read_control,
    ExitKind.CR_WRITE: write_control,
    ExitKind.DEBUG_REGISTER: debug_register,
    ExitKind.INVLPG: _invlpg,
    ExitKind.TABLE_LOAD: _table_load,
    ExitKind.CPUID: _cpuid,
    ExitKind.MSR: _msr,
    ExitKind.RDTSC: _rdtsc,
    ExitKind.RDPMC: _rdpmc,
    ExitKind.HLT: _hlt,
    ExitKind.PAUSE: _pause,
    ExitKind.SYSCALL: _syscall,
    ExitKind.CACHE: _cache,
    ExitKind.IRET: _iret,
    ExitKind.INTERRUPT_WINDOW: _interrupt_window,
    ExitKind.SVM: _svm,
    ExitKind.UNDEFINED: _undefined,
    ExitKind.PORT_DENIED: _port_denied,
    ExitKind.TASK_SWITCH: finish_task_switch,
    ExitKind.SHUTDOWN: _shutdown,
}
