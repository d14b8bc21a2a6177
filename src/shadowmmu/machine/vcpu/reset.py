# SPDX-License-Identifier: GPL-2.0-only
"""The registers of a processor after a reset, in real mode. Sources: APM vol. 2 section 14.1.3; SDM vol. 3 section 10.1.1."""

from shadowmmu.machine.seam import Reg, Segment, State, System, Table
from shadowmmu.x86.control import Cr0, Rflags

RESET_CR0 = int(Cr0.CD | Cr0.NW | Cr0.ET)
_CODE_16, _DATA_16 = 0x09B, 0x093


def system_state(code: Segment, data: Segment) -> System:
    """With these segments; the other system registers as a reset leaves them."""
    return System(
        (data, code, data, data, data, data),
        ldtr=Segment(0, 0x82, 0xFFFF, 0),
        tr=Segment(0, 0x8B, 0xFFFF, 0),
        gdtr=Table(0, 0),
        idtr=Table(0, 0x3FF),
        cpl=0,
        dr6=0xFFFF0FF0,
        dr7=0x400,
        kernel_gs_base=0,
    )


def real_mode(selector: int, base: int, rip: int, signature: int = 0) -> State:
    """About to execute at `base` + `rip`. `signature`, in EDX, tells the processor's model."""
    system = system_state(Segment(selector, _CODE_16, 0xFFFF, base), Segment(0, _DATA_16, 0xFFFF, 0))
    state = State([0] * 16, rip, int(Rflags.FIXED), system)
    state.gpr[Reg.RDX] = signature
    return state
