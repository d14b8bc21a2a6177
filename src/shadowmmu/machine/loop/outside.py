# SPDX-License-Identifier: GPL-2.0-only
"""What comes from outside, by the local APIC: INIT, SIPI, SMI, NMI and interrupts, and whether the vCPU takes them now.

As KVM does before each entry (kvm_apic_accept_events, kvm_check_and_inject_events). Of an L2 they are L1's, if it
intercepts them. Sources: APM vol. 2 sections 15.13 and 15.17; SDM vol. 3 section 10.4.4.
"""

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import State
from shadowmmu.machine.svm.world_switch import recalc_intercepts, vmexit
from shadowmmu.machine.vcpu.cpuid import SIGNATURE
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.reset import RESET_CR0, real_mode
from shadowmmu.x86.control import Rflags
from shadowmmu.x86.vectors import NMI
from shadowmmu.x86.vmcb import SvmExit

_IF = int(Rflags.INTR)


def is_runnable(p: Processor) -> bool:
    """It does not sleep, or something wakes it."""
    if not (p.halted or p.waits_for_startup):
        return True
    apic = p.apic
    if apic is None or not apic.attention:
        return False
    if apic.init or p.waits_for_startup:
        return (apic.init and p.gif) or (p.waits_for_startup and apic.startup is not None)
    if apic.smi and _is_l1s(p, SvmExit.SMI):
        return True
    state = p.cpu.state()
    return bool((apic.nmis and not _blocks_nmi(p, state)) or (apic.has_interrupt() and not _blocks_interrupt(p, state)))


def may_come_at_an_exit(p: Processor) -> bool:
    """Something waits that the vCPU may take behind any exit. An interrupt of L1's own comes when EFLAGS.IF is set, which is watched for,
    or by an access to the local APIC, or when it runs an L2."""
    apic = p.apic
    if apic is None or not apic.attention:
        return False
    return bool(apic.nmis or apic.smi or apic.init or apic.startup is not None or not p.gif or p.nested is not None)


def take_from_outside(p: Processor) -> None:
    """Queue what the vCPU takes now; what waits for it to become ready is watched for."""
    apic = p.apic
    if apic is None:
        return
    waits = False
    if apic.attention:
        if apic.init and p.gif:
            _take_init(p, apic)
        if apic.startup is not None:
            _take_startup(p, apic)
        waits = _take_event(p, apic)
    if waits != p.waits_for_window:
        p.waits_for_window = waits
        recalc_intercepts(p)


def _take_event(p: Processor, apic: LocalApic) -> bool:
    """SMI, then NMI come first. True: an interrupt is left, until the guest has interrupts on."""
    if apic.smi and p.gif:
        _take_smi(p, apic)
    state = p.cpu.state()
    if p.nmi_masked:
        apic.nmis = min(apic.nmis, 1)  # beside the one that is being handled
    if apic.nmis:
        if not _blocks_nmi(p, state):
            _take_nmi(p, apic)
            return apic.has_interrupt() and _can_let_in(p)
        if state.interrupt_shadow or p.unmasked_at is not None:
            p.cpu.stop_at(p.cpu.executed + 1)
    if not apic.has_interrupt():
        return False
    if _blocks_interrupt(p, state):
        return _can_let_in(p)
    _take_interrupt(p, apic)
    return apic.has_interrupt() and _can_let_in(p)


def _can_let_in(p: Processor) -> bool:
    """What runs now can become ready by itself: it is not GIF, or L1's own EFLAGS.IF, that is in the way."""
    return p.gif and not (p.nested is not None and p.nested.masks_interrupts)


def _blocks_nmi(p: Processor, state: State) -> bool:
    if not p.gif:
        return True
    if p.nested is not None and p.nested.wants(SvmExit.NMI):
        return False
    if p.unmasked_at is not None and p.unmasked_at != state.rip:
        p.unmasked_at = None
    return p.nmi_masked or p.unmasked_at is not None or state.interrupt_shadow


def _blocks_interrupt(p: Processor, state: State) -> bool:
    """GIF, EFLAGS.IF - of L1, if its VMCB says so - and the shadow of STI, which does not hold up an exit to L1."""
    if not p.gif:
        return True
    flags = p.nested.l1_rflags if p.nested is not None and p.nested.masks_interrupts else state.rflags
    if not flags & _IF:
        return True
    if p.nested is not None and p.nested.wants(SvmExit.INTR):
        return False
    return state.interrupt_shadow


def _is_l1s(p: Processor, code: SvmExit) -> bool:
    return p.gif and p.nested is not None and p.nested.wants(code)


def _goes_to_l1(p: Processor, code: SvmExit) -> bool:
    """It wakes whoever sleeps; L2 is left if L1 asks for that."""
    p.halted = False
    if p.nested is None or not p.nested.wants(code):
        return False
    vmexit(p, code, at_entry=True)
    return True


def _take_smi(p: Processor, apic: LocalApic) -> None:
    """L1's, if its L2 runs and it asks for it; then it waits for STGI. There is no firmware that does anything else about it."""
    if _is_l1s(p, SvmExit.SMI):
        _goes_to_l1(p, SvmExit.SMI)
    else:
        apic.smi = False


def _take_nmi(p: Processor, apic: LocalApic) -> None:
    if _goes_to_l1(p, SvmExit.NMI):
        return
    apic.nmis -= 1
    p.nmi_masked = True
    recalc_intercepts(p)
    p.queue(Event(NMI, external=True))


def _take_interrupt(p: Processor, apic: LocalApic) -> None:
    if _goes_to_l1(p, SvmExit.INTR):
        return
    vector = apic.acknowledge()
    if vector is not None:
        p.queue(Event(vector, external=True))


def _take_init(p: Processor, apic: LocalApic) -> None:
    """L1's, if its L2 runs and it asks for it; then it waits for STGI."""
    if _goes_to_l1(p, SvmExit.INIT):
        return
    if p.nested is not None:
        p.svm.forget()
        p.vcpu.nested_vmexit()
    apic.init = False
    apic.reset()
    start, apic.begins_at = apic.begins_at, None
    if start is None:
        _reset(p, 0xF000, 0xFFFF0000, 0xFFF0)
    else:
        _reset(p, start >> 4, start & ~0xF, start & 0xF)
    p.waits_for_startup = p.vcpu.id != 0


def _take_startup(p: Processor, apic: LocalApic) -> None:
    """It counts only after an INIT."""
    vector, apic.startup = apic.startup, None
    if p.waits_for_startup and vector is not None:
        p.waits_for_startup = False
        _reset(p, vector << 8, vector << 12, 0)


def _reset(p: Processor, selector: int, base: int, rip: int) -> None:
    p.gif, p.nmi_masked, p.unmasked_at, p.pending = True, False, None, None
    p.vcpu.set_sregs(RESET_CR0, 0, 0, 0)
    recalc_intercepts(p)
    p.cpu.set_state(real_mode(selector, base, rip, SIGNATURE))
