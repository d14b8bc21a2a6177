# SPDX-License-Identifier: GPL-2.0-only
"""What the machine itself wants to see of a guest, with shadow paging and with nested paging."""

from shadowmmu.machine.seam import MASK32, Intercepts
from shadowmmu.x86.vmcb import Intercept1, Intercept2

_CR0, _CR2, _CR3, _CR4, _CR8 = (1 << register for register in (0, 2, 3, 4, 8))
_FIRST = (
    Intercept1.RDTSC
    | Intercept1.RDPMC
    | Intercept1.CPUID
    | Intercept1.SOFTWARE_INTERRUPT
    | Intercept1.HLT
    | Intercept1.INVLPGA
    | Intercept1.MSR
    | Intercept1.TASK_SWITCH
    | Intercept1.SHUTDOWN
)
_SECOND = (
    Intercept2.VMRUN
    | Intercept2.VMMCALL
    | Intercept2.VMLOAD
    | Intercept2.VMSAVE
    | Intercept2.STGI
    | Intercept2.CLGI
    | Intercept2.SKINIT
    | Intercept2.RDTSCP
    | Intercept2.WBINVD
    | Intercept2.MONITOR
    | Intercept2.MWAIT
    | Intercept2.MWAIT_ARMED
)
_CRS = _CR0 | _CR2 | _CR4 | _CR8
NESTED_PAGING = Intercepts(_CRS, _CRS, 0, 0, MASK32, int(_FIRST), int(_SECOND))
"""The guest walks its own tables: CR3 and INVLPG are its own."""
SHADOW_PAGING = NESTED_PAGING | Intercepts(_CR3, _CR3, 0, 0, 0, int(Intercept1.INVLPG), 0)
TABLE_LOADS = Intercepts(0, 0, 0, 0, 0, int(Intercept1.IDTR_WRITE | Intercept1.GDTR_WRITE | Intercept1.LDTR_WRITE | Intercept1.TR_WRITE), 0)
"""This CPU takes bases that are not canonical. Not for the bare platform, whose guests meet what KVM's do, fault by fault."""
DEBUG_CONTROL = Intercepts(0, 0, 0, 1 << 5 | 1 << 7, 0, 0, 0)
"""DR7, and DR5, which may be the same, as this CPU heeds no breakpoint on data. For the same reason not for the bare platform."""
EXIT_ON_PAUSE = Intercepts(0, 0, 0, 0, 0, int(Intercept1.PAUSE), 0)
"""So that other vCPUs get their turn."""
