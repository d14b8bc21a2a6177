# SPDX-License-Identifier: GPL-2.0-only
"""What comes from outside while L2 runs: L1's, if it intercepts it, by L1's own flag, if its VMCB says so. APM vol. 2 section 15.13."""

import pytest
from nested_bench import L2_CODE, VMMCALL, Bench

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.loop.outside import take_from_outside
from shadowmmu.machine.seam import State
from shadowmmu.x86.vmcb import Intercept1, SvmExit, VIntr, Vmcb

SPIN = "ebfe"
INTERRUPTS_ON = 0x202


def bench(intercepts: int = 0, *, masking: bool = False) -> tuple[Bench, LocalApic]:
    """An L1 on the PC, with its local APIC."""
    made = Bench(platform="pc")
    made.set(Vmcb.INTERCEPTS_1, Intercept1.HLT | Intercept1.SHUTDOWN | intercepts, 4)
    made.set(Vmcb.V_INTR, VIntr.MASKING if masking else 0)
    apic = made.processor.apic
    assert apic is not None
    apic.spurious = 0x1FF
    return made, apic


def l1(made: Bench, flags: int) -> State:
    """At its VMRUN, behind a CLGI."""
    made.processor.gif = False
    state = made.l1_state()
    state.rflags = flags
    return state


def run(made: Bench, code: str, flags: int = 2) -> int:
    """L2 on this code, below an L1 with these flags; the exit code."""
    made.put(L2_CODE, code)
    made.run(l1(made, flags))
    return made.field(Vmcb.EXIT_CODE)


@pytest.mark.parametrize("masking", [False, True])
def test_an_interrupt_is_l1s_if_it_intercepts_it(masking: bool) -> None:
    made, apic = bench(Intercept1.INTR, masking=masking)
    made.set(Vmcb.RFLAGS, 2 if masking else INTERRUPTS_ON)
    apic.irr = 1 << 0x51
    assert run(made, SPIN, INTERRUPTS_ON if masking else 2) == SvmExit.INTR
    assert made.field(Vmcb.RIP) == L2_CODE and apic.irr, "L1 is to take it when it lets it in"


def test_an_interrupt_that_nobody_intercepts_is_l2s() -> None:
    made, apic = bench()
    made.gate(0x51, L2_CODE + 0x20)
    made.put(L2_CODE + 0x20, VMMCALL)
    apic.irr = 1 << 0x51
    assert run(made, "90fb9090f4") == SvmExit.VMMCALL
    assert apic.isr == 1 << 0x51 and not apic.irr


def test_l1s_own_flag_keeps_it_away_from_l2() -> None:
    made, apic = bench(masking=True)
    apic.irr = 1 << 0x51
    assert run(made, "fb9090" + VMMCALL) == SvmExit.VMMCALL
    assert apic.irr and made.machine.processors[0].exits.total() < 30, "nobody waits for a window that cannot open"


@pytest.mark.parametrize(("intercept", "code"), [(Intercept1.NMI, SvmExit.NMI), (Intercept1.INIT, SvmExit.INIT)])
def test_nmi_and_init_are_l1s_if_it_intercepts_them(intercept: Intercept1, code: SvmExit) -> None:
    made, apic = bench(intercept)
    if code == SvmExit.NMI:
        apic.nmis = 1
    else:
        apic.init = True
    apic.startup = None
    assert run(made, SPIN) == code
    assert apic.nmis or apic.init, "it waits for STGI"


def test_an_smi_is_l1s_if_it_intercepts_it_and_nobodys_otherwise() -> None:
    made, apic = bench(Intercept1.SMI)
    apic.send(0x200 | 1 << 18)  # to itself
    assert run(made, "f4") == SvmExit.SMI and apic.smi, "it waits for STGI"
    made.processor.gif = True
    take_from_outside(made.processor)
    assert not apic.smi
    made, apic = bench()
    apic.smi = True
    assert run(made, "f4") == SvmExit.HLT and not apic.smi


def test_an_nmi_comes_to_l2_once_until_its_iret() -> None:
    made, apic = bench()
    made.gate(2, L2_CODE + 0x20)
    made.put(L2_CODE + 0x20, "ffc3" + "48cf")  # inc ebx; iretq
    apic.nmis = 2
    state = l1(made, 2)
    state.gpr[3] = 0
    made.put(L2_CODE, "90" * 8 + VMMCALL)
    made.run(state)
    assert made.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL
    assert made.processor.cpu.state().gpr[3] == 2 and not apic.nmis


def test_nmis_that_come_while_one_is_handled_are_one() -> None:
    made, apic = bench()
    made.processor.nmi_masked, apic.nmis = True, 2
    take_from_outside(made.processor)
    assert apic.nmis == 1 and made.processor.pending is None
