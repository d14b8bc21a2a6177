"""Reads and writes of control registers: MOV, CLTS, LMSW, SMSW; and the registers the hardware really runs with.

What a value means for paging, and which values are illegal for it, the engine knows; here are the rules that need
other registers or what CPUID offers. Source: APM vol. 2 section 3.1; SDM vol. 3 section 2.5.
"""

from typing import TYPE_CHECKING

from iced_x86 import Code, Mnemonic

from shadowmmu.machine.emulator.decode import bitness
from shadowmmu.machine.emulator.emulation import Emulation
from shadowmmu.machine.memory.linear_memory import GP, READ, WRITE, GuestFault
from shadowmmu.machine.seam import Controls, CpuError, Exit
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.vmcb import SvmExit

if TYPE_CHECKING:
    from shadowmmu import Entry, Vcpu
    from shadowmmu.machine.vcpu.processor import Processor

_READS = frozenset((Code.MOV_R32_CR, Code.MOV_R64_CR, Code.SMSW_RM16, Code.SMSW_R32M16, Code.SMSW_R64M16))
_WRITES = frozenset((Code.MOV_CR_R32, Code.MOV_CR_R64, Code.CLTS, Code.LMSW_RM16, Code.LMSW_R32M16, Code.LMSW_R64M16))
_CR0_KNOWN = 0xE005003F
_MACHINE_STATUS = Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS
CR4_OFFERED = int(
    Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
    | Cr4.LA57 | Cr4.FSGSBASE | Cr4.SMEP | Cr4.SMAP
)  # fmt: skip
"""CR4 bits the guest may set: those CPUID offers, and LA57 always."""
_PAGE_RIGHTS = int(Cr4.SMEP | Cr4.SMAP | Cr4.PKE)
# Plain integers: an enumeration's operators are too slow for every entry.
_PG, _LMA, _LME, _LA57 = int(Cr0.PG), int(Efer.LMA), int(Efer.LME), int(Cr4.LA57)
_CR0_SET, _CR0_CLEAR = int(Cr0.PG | Cr0.WP), int(Cr0.CD | Cr0.NW)
_CR4_SET, _EFER_SET = int(Cr4.PAE | Cr4.MCE), int(Efer.NXE | Efer.SVME)
_MCE, _SVME = int(Cr4.MCE), int(Efer.SVME)
_NESTED_LEVELS = 4


def real_controls(vcpu: "Vcpu", entry: "Entry") -> Controls:
    """What the hardware runs with while the guest believes in its own registers and shadow tables are used.

    As KVM does: paging, WP, PAE and NXE always; caches never off; no SMEP or SMAP on a guest without paging, whose
    shadow maps everything for users; long mode only once it is active. With nested paging the CPU walks the guest's
    tables as the guest's registers say.
    """
    cr0, cr4, efer = vcpu.cr0, vcpu.cr4, vcpu.efer
    if vcpu.vm.tdp:
        if entry.level != _NESTED_LEVELS:
            raise CpuError(
                f"the engine gives nested tables of {entry.level} levels, this CPU walks {_NESTED_LEVELS}; make the VM with host_levels=4"
            )
        return Controls(cr0 & ~_CR0_CLEAR, vcpu.cr3, cr4 | _MCE, efer | _SVME, entry.root)
    if not cr0 & _PG:
        cr4 &= ~_PAGE_RIGHTS
    if not efer & _LMA:
        efer &= ~_LME
    level = 3 if not efer & _LMA else 5 if cr4 & _LA57 else 4
    if entry.level != level:
        raise CpuError(f"the engine gives a root of level {entry.level} where the hardware walks {level}; report this as a bug")
    return Controls((cr0 | _CR0_SET) & ~_CR0_CLEAR, entry.root, cr4 | _CR4_SET, efer | _EFER_SET)


def read_control(p: "Processor", exit_: Exit) -> None:
    """MOV from CRn, or SMSW."""
    state = p.capture()
    e = Emulation(p.fetcher.decode(state, _READS), state, p.memory, p.cpu)
    vcpu = p.vcpu
    value = {0: vcpu.cr0, 2: vcpu.cr2, 3: vcpu.cr3, 4: vcpu.cr4, 8: p.task_priority}[exit_.number]
    if e.is_memory(0):
        e.memory.store(e.locate(0, WRITE, 2), value & 0xFFFF)
    else:
        e.set_register(0, value)
    p.advance(state, e.instruction)


def write_control(p: "Processor", exit_: Exit) -> None:
    """MOV to CRn, CLTS or LMSW."""
    state = p.capture()
    e = Emulation(p.fetcher.decode(state, _WRITES), state, p.memory, p.cpu)
    mnemonic = e.instruction.mnemonic
    if mnemonic == Mnemonic.CLTS:
        value = p.vcpu.cr0 & ~Cr0.TS
    elif mnemonic == Mnemonic.LMSW:
        source = e.memory.load(e.locate(0, READ, 2)) if e.is_memory(0) else e.value(0)
        keep = ~_MACHINE_STATUS | (p.vcpu.cr0 & Cr0.PE)  # LMSW sets PE, it does not clear it
        value = p.vcpu.cr0 & keep | source & _MACHINE_STATUS
    else:
        value = e.value(1)
    if exit_.number == 0 and p.nested is not None and _selective(p, mnemonic, value):
        p.leave_l2(SvmExit.CR0_SELECTIVE)
        return
    if not p.write_register(_WRITERS[exit_.number], value, bitness(state, p.vcpu.efer) == 64):
        raise GuestFault(GP)
    p.advance(state, e.instruction)


def _selective(p: "Processor", mnemonic: int, value: int) -> bool:
    """L1 intercepts writes of CR0 that change more than TS and MP; CLTS is none of them. APM vol. 2 section 15.9."""
    assert p.nested is not None
    return mnemonic != Mnemonic.CLTS and p.nested.wants(SvmExit.CR0_SELECTIVE) and bool((value ^ p.vcpu.cr0) & ~(Cr0.TS | Cr0.MP))


def _write_cr0(p: "Processor", value: int, in_64_bit_code: bool) -> bool:
    vcpu = p.vcpu
    if value >> 32:
        return False
    value &= _CR0_KNOWN
    switches = (value ^ vcpu.cr0) & Cr0.PG
    if switches and in_64_bit_code:
        return False  # paging cannot be turned off under 64-bit code
    if switches and value & Cr0.PG and vcpu.efer & Efer.LME and p.cpu.state().cs.long:
        return False  # nor long mode on with CS.L set
    return bool(vcpu.set_cr0(value))


def _write_cr2(p: "Processor", value: int, _in_64_bit_code: bool) -> bool:
    p.vcpu.cr2 = value
    return True


def _write_cr3(p: "Processor", value: int, _in_64_bit_code: bool) -> bool:
    return bool(p.vcpu.set_cr3(value))


def _write_cr4(p: "Processor", value: int, _in_64_bit_code: bool) -> bool:
    return not value & ~CR4_OFFERED and bool(p.vcpu.set_cr4(value))


def _write_cr8(p: "Processor", value: int, _in_64_bit_code: bool) -> bool:
    if value > 15:
        return False
    p.task_priority = value
    if p.nested is not None:
        p.cpu.set_intercepts(p.nested.intercepts(p))  # it may let a virtual interrupt through
    return True


_WRITERS = {0: _write_cr0, 2: _write_cr2, 3: _write_cr3, 4: _write_cr4, 8: _write_cr8}
