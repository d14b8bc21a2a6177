# SPDX-License-Identifier: GPL-2.0-only
"""What Unicorn calls its interrupt hook with, as exits: 100h and the code of a #VMEXIT (APM vol. 2 appendix C)."""

from shadowmmu.machine.seam import CpuError, Exit, ExitKind
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vmcb import SvmExit

HOOKED = 0x100
"""What the hook's number of an exit begins with."""
_RSVD, _PRESENT = int(Pferr.RSVD), int(Pferr.PRESENT)
_PLAIN_EXITS = {
    SvmExit.SOFTWARE_INTERRUPT: ExitKind.SOFTWARE_INTERRUPT,
    SvmExit.IDTR_WRITE: ExitKind.TABLE_LOAD,
    SvmExit.GDTR_WRITE: ExitKind.TABLE_LOAD,
    SvmExit.LDTR_WRITE: ExitKind.TABLE_LOAD,
    SvmExit.TR_WRITE: ExitKind.TABLE_LOAD,
    SvmExit.INVLPG: ExitKind.INVLPG,
    SvmExit.CPUID: ExitKind.CPUID,
    SvmExit.RDTSC: ExitKind.RDTSC,
    SvmExit.RDTSCP: ExitKind.RDTSC,
    SvmExit.RDPMC: ExitKind.RDPMC,
    SvmExit.IRET: ExitKind.IRET,
    SvmExit.HLT: ExitKind.HLT,
    SvmExit.PAUSE: ExitKind.PAUSE,
    SvmExit.INVD: ExitKind.CACHE,
    SvmExit.WBINVD: ExitKind.CACHE,
    SvmExit.SHUTDOWN: ExitKind.SHUTDOWN,
}


def _exit_table() -> dict[int, Exit]:
    """Exits that carry nothing but their number."""
    table = {int(code): Exit(kind, int(code)) for code, kind in _PLAIN_EXITS.items()}
    for register in range(16):
        table[SvmExit.CR_READ + register] = Exit(ExitKind.CR_READ, register)
        table[SvmExit.CR_WRITE + register] = Exit(ExitKind.CR_WRITE, register)
        for code in (SvmExit.DR_READ + register, SvmExit.DR_WRITE + register):
            table[code] = Exit(ExitKind.DEBUG_REGISTER, code)
    for code in (SvmExit.INVLPGA, *range(SvmExit.VMRUN, SvmExit.SKINIT + 1)):
        table[code] = Exit(ExitKind.SVM, int(code))
    for code in (SvmExit.MONITOR, SvmExit.MWAIT, SvmExit.MWAIT_ARMED):
        table[code] = Exit(ExitKind.UNDEFINED, int(code))
    return table


_EXITS = _exit_table()


def exit_of(code: int, error: int, address: int, wrap: int) -> Exit:
    """The exit with `code`; `error`: EXITINFO1, `address`: EXITINFO2, of a #PF only its bits in `wrap`. Raises CpuError."""
    if code == SvmExit.PAGE_FAULT:
        if error & _RSVD:
            error |= _PRESENT  # which this engine forgets
        return Exit(ExitKind.PAGE_FAULT, 14, error, address & wrap)
    if code == SvmExit.NESTED_PAGE_FAULT:
        return Exit(ExitKind.NESTED_PAGE_FAULT, error_code=error, gva=address)
    known = _EXITS.get(code)
    if known is not None:
        return known
    if code == SvmExit.MSR:
        return Exit(ExitKind.MSR, error & 1)
    if SvmExit.EXCEPTION <= code < SvmExit.EXCEPTION + 32:
        return Exit(ExitKind.EXCEPTION, code - SvmExit.EXCEPTION, error)
    if code < 0:
        raise CpuError(f"the CPU calls its hook with {code + HOOKED:#x} and no exit; install unicorn==2.1.4")
    return Exit(ExitKind.INTERCEPTED, code)
