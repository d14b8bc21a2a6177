# SPDX-License-Identifier: GPL-2.0-only
"""An event on its way to the guest."""

from enum import Enum
from typing import NamedTuple

from shadowmmu.machine.memory.linear_memory import Event


class Origin(Enum):
    """Who raises an event; so it is told whether and when L1 may take it from its L2."""

    CPU = "the CPU"
    """While it runs the guest: an intercept of L1 is met right there."""
    KVM = "the host"
    """Queued while an exit is handled (kvm_queue_exception), injected at the next entry: L1 takes it on the way there."""
    VMRUN = "L1"
    """Its VMRUN has asked for it in EVENTINJ: it does not meet L1's own intercepts (APM vol. 2 section 15.20)."""


class Pending(NamedTuple):
    """What is to be delivered."""

    event: Event
    origin: Origin = Origin.KVM
