# SPDX-License-Identifier: GPL-2.0-only
"""What VMRUN finds illegal in a VMCB: the guest is not entered, the exit code is VMEXIT_INVALID.

What is the MMU's of it - CR0, CR4, long mode, nested CR3 - `Vcpu.may_vmrun` judges (`engine/cpu/legal.py`).

Sources: APM vol. 2 sections 15.5.1 (state), 15.20 (events), 15.25.4 (nested paging).
"""

from typing import TYPE_CHECKING

from shadowmmu.machine.vcpu.cpuid import CR4_OFFERED
from shadowmmu.machine.vcpu.msr import EFER_OFFERED, is_pat
from shadowmmu.machine.vcpu.vmcb import Control, Save
from shadowmmu.x86.control import Cr0, Efer
from shadowmmu.x86.vectors import LAST, NMI
from shadowmmu.x86.vmcb import EventInj, EventType, Intercept1, Intercept2, TlbControl

if TYPE_CHECKING:
    from shadowmmu import Vcpu

_IOPM_SIZE, _MSRPM_SIZE = 3 << 12, 2 << 12
_TLB_CONTROLS = frozenset(int(control) for control in TlbControl)
_EVENT_TYPES = frozenset(int(kind) for kind in EventType)


def is_legal(control: Control, save: Save, vcpu: "Vcpu") -> bool:
    """Whether VMRUN goes on. `vcpu` still runs L1."""
    return (
        _is_legal_control(control, vcpu)
        and _is_legal_event(control.event_inj)
        and _is_legal_state(save, vcpu)
        and vcpu.may_vmrun(save.cr0, save.cr4, save.efer, control.ncr3 if control.nested_paging else None)
        and (not control.nested_paging or is_pat(save.g_pat))
    )


def _is_legal_control(control: Control, vcpu: "Vcpu") -> bool:
    if not control.intercepts.second & Intercept2.VMRUN or not control.asid or control.tlb_control not in _TLB_CONTROLS:
        return False
    end = 1 << vcpu.vm.maxphyaddr
    first = control.intercepts.first
    if first & Intercept1.IOIO and control.iopm_base + _IOPM_SIZE > end:
        return False
    return not (first & Intercept1.MSR and control.msrpm_base + _MSRPM_SIZE > end)


def _is_legal_event(info: int) -> bool:
    if not info & EventInj.VALID:
        return True
    kind, vector = (info & EventInj.TYPE_MASK) >> EventInj.TYPE_SHIFT, info & EventInj.VECTOR
    return kind in _EVENT_TYPES and (kind != EventType.EXCEPTION or (vector != NMI and vector <= LAST))


def _is_legal_state(save: Save, vcpu: "Vcpu") -> bool:
    if not save.efer & Efer.SVME or save.efer & ~int(EFER_OFFERED) or save.cr4 & ~CR4_OFFERED:
        return False
    if save.dr6 >> 32 or save.dr7 >> 32 or save.cr3 >> vcpu.vm.maxphyaddr:
        return False
    return not (save.efer & Efer.LME and save.cr0 & Cr0.PG and save.cs.long and save.cs.big)
