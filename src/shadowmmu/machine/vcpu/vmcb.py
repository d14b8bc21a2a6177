# SPDX-License-Identifier: GPL-2.0-only
"""Events as L1's VMCB has them."""

from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.x86.vmcb import EventInj, EventType

_TYPE_SHIFT, _VALID, _HAS_ERROR_CODE = int(EventInj.TYPE_SHIFT), int(EventInj.VALID), int(EventInj.HAS_ERROR_CODE)


def event_info(event: Event) -> int:
    """An event as EXITINTINFO tells it."""
    kind = EventType.SOFTWARE_INTERRUPT if event.software else EventType.EXCEPTION
    if event.external:
        kind = EventType.NMI if event.is_nmi else EventType.INTERRUPT
    info: int = event.vector | kind << _TYPE_SHIFT | _VALID
    if event.pushes_error_code:
        info |= _HAS_ERROR_CODE | event.error_code << EventInj.ERROR_CODE_SHIFT
    return info


def injected_event(info: int, rip: int) -> Event | None:
    """The event that EVENTINJ asks for, to return to `rip`; None if the field is not valid."""
    if not info & _VALID:
        return None
    kind, vector = (info & EventInj.TYPE_MASK) >> _TYPE_SHIFT, info & EventInj.VECTOR
    if kind == EventType.SOFTWARE_INTERRUPT:
        return Event(vector, software=True, next_rip=rip)
    if kind == EventType.EXCEPTION:
        return Event(vector, info >> EventInj.ERROR_CODE_SHIFT & 0xFFFFFFFF)
    return Event(2 if kind == EventType.NMI else vector, external=True)
