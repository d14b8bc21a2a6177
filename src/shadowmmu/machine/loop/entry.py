# SPDX-License-Identifier: GPL-2.0-only
"""Entry of the guest, up to where the CPU runs (KVM: vcpu_enter_guest)."""

from shadowmmu import Entry, TripleFault
from shadowmmu.machine.real_controls import real_controls
from shadowmmu.machine.svm.reflect import shut_down
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.vmcb import SvmExit


def enter(p: Processor) -> None:
    """Let the engine serve its requests, and make the CPU ready to run on what it gives."""
    entry = _served(p)
    p.cpu.set_controls(real_controls(p.vcpu))
    if entry.flush_all:
        p.flush_all()
    for gva in entry.flush_gvas:
        p.flush_page(gva)
    p.witness.entered()


def _served(p: Processor) -> Entry:
    """The engine's entry; if it can make no root for L2, that of L1, which has a shutdown exit if it wants one."""
    try:
        return p.vcpu.enter() if p.quick is None else p.quick.enter()
    except TripleFault as end:
        if p.nested is None or not p.nested.wants(SvmExit.SHUTDOWN):
            raise
        shut_down(p, str(end))
        return p.vcpu.enter()
