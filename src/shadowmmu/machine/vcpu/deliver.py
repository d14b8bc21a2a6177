# SPDX-License-Identifier: GPL-2.0-only
"""Delivery of exceptions and software interrupts through the guest's IDT. The steps of it are in `delivery`.

`deliver` works on a copy: if the delivery itself faults, it raises GuestFault and nothing has changed. A task gate ends it: `TaskGate`
tells where it leads.
"""

from shadowmmu.machine.memory.linear_memory import Event, GuestMemory
from shadowmmu.machine.seam import State
from shadowmmu.machine.vcpu.delivery_attempt import Attempt
from shadowmmu.x86.control import Cr0, Efer
from shadowmmu.x86.vectors import DE, DF, GP, NP, PF, SS, TS

_CONTRIBUTORY = frozenset((DE, TS, NP, SS, GP))
_PE, _LMA = int(Cr0.PE), int(Efer.LMA)


class TaskSwitch(Exception):
    """L2 switches tasks by hardware, which this machine does not do."""


class TaskGate(Exception):
    """The event goes through a task gate to the task of this TSS."""

    def __init__(self, selector: int) -> None:
        super().__init__(f"task gate to {selector:#x}")
        self.selector = selector


class TripleFaultDelivery(Exception):
    """A fault during the delivery of a double fault: the CPU shuts down."""


def second_event(first: Event, second: Event) -> Event:
    """What a fault during the delivery of `first` becomes. SDM vol. 3 table 6-5."""
    if first.vector == DF and first.is_exception:
        raise TripleFaultDelivery(f"{second.name} during the delivery of a double fault")
    serious = second.vector in _CONTRIBUTORY or second.vector == PF
    if not first.is_exception or not serious:
        return second
    if first.vector == PF or (first.vector in _CONTRIBUTORY and second.vector in _CONTRIBUTORY):
        return Event(DF)
    return second


def deliver(state: State, cr0: int, efer: int, memory: GuestMemory, event: Event) -> State:
    """The state at the handler's first instruction; raises GuestFault if the delivery faults. `cr0` and `efer` are those the guest
    believes in."""
    found = Attempt(state, event, memory, not cr0 & _PE, bool(efer & _LMA)).run()
    if isinstance(found, int):
        raise TaskGate(found)
    return found
