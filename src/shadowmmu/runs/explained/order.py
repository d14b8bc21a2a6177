# SPDX-License-Identifier: GPL-2.0-only
"""What must stand before an event of one vCPU: an exit before its handling, a fault before its walk, a request before its entry.

Nothing is said of a kind that the trace has not told yet, as it may not be traced, nor of what began before a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shadowmmu.runs.explained.walks import Walks
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

RESERVED = 8
HANDLED = ("kvm_pio", "kvm_userspace_exit", "kvm_cpuid", "kvm_hypercall")
"""Events of the vCPU loop that come behind an exit only; writes of MSRs may be done before it is told."""


class Order:
    """Follows one vCPU from entry to entry; `take` says what is missing before an event, if anything is."""

    def __init__(self, walks: Walks) -> None:
        self.walks = walks
        self.seen: set[type[AnyEvent]] = set()
        self.forget()

    def forget(self) -> None:
        """Something is missing in the trace: what follows may have begun in there."""
        self.inside: bool | None = None
        self.whole = False
        """All since the last entry or exit was told."""
        self._begin()

    def begins(self) -> None:
        """The VM is made here: its first exit has an entry before it."""
        self.forget()
        self.inside = False
        self.seen.add(e.VmEntry)

    def _begin(self) -> None:
        self.fault: type[AnyEvent] | None = None
        """What told of the fault under way, the newest of its kinds."""
        self.requested = self.emulated = self.nested = False

    def take(self, event: AnyEvent) -> str:
        check = _CHECKS.get(type(event))
        if check is None:
            return ""
        what = check(self, event)
        self.seen.add(type(event))
        return what

    def has(self, kind: type[AnyEvent]) -> bool:
        return kind in self.seen


def _exit(order: Order, _: e.Exit) -> str:
    missing = order.inside is False and order.has(e.VmEntry)
    order.inside, order.whole = False, True
    order._begin()
    order.walks.end()
    return "an exit follows an exit: the entry between is missing" if missing else ""


def _entry(order: Order, _: e.VmEntry) -> str:
    missing = order.whole and order.fault is e.MmuPageFault and order.has(e.MmuPageFaultRet)
    order.inside, order.whole = True, True
    order._begin()
    order.walks.end()
    return "the guest is entered, and the fault before has not returned: mmu_page_fault_ret is missing" if missing else ""


def _handled(order: Order, event: AnyEvent) -> str:
    """Something that the host does for a vCPU which has left the guest."""
    if order.inside and order.has(e.Exit):
        order.inside = False
        return f"{getattr(event, 'ev', event.name)} while the guest runs: its exit is missing"
    return ""


def _page_fault(order: Order, event: e.PageFault) -> str:
    missing = _handled(order, event)
    order.fault = e.PageFault
    return missing


def _mmu_page_fault(order: Order, event: e.MmuPageFault) -> str:
    missing = _handled(order, event)
    if not missing and order.whole and order.fault is None and order.has(e.PageFault) and not int(event.err) & RESERVED:
        missing = "mmu_page_fault without kvm_page_fault before it"
    order.fault = e.MmuPageFault
    return missing


def _returned(order: Order, event: AnyEvent) -> str:
    missing = order.whole and order.has(e.MmuPageFault) and order.fault is not e.MmuPageFault and not order.nested
    order._begin()
    order.walks.end()
    return f"{event.name} of a fault that is not told" if missing else ""


def _element(order: Order, event: e.PagingElement) -> str:
    if order.whole and order.has(e.Walk) and not order.walks.is_under_way:
        return f"an entry of level {int(event.level)} is read, and its walk is not told"
    return ""


def _requested(order: Order, event: e.SpteRequested) -> str:
    missing = _handled(order, event)
    last = order.walks.leads_on
    if not missing and order.whole and order.fault is e.PageFault and order.has(e.MmuPageFault):
        missing = "an entry is requested for a fault, and mmu_page_fault is missing before it"
    if not missing and order.whole and last and not order.nested:
        missing = f"an entry is requested, and the walk has ended at a table of level {last} that leads on"
    order.requested = True
    order.walks.end()
    return missing


def _set(order: Order, _: e.SetSpte) -> str:
    told = order.whole and order.fault is not None and order.has(e.SpteRequested)
    if told and not order.requested and not order.emulated:
        order.requested = True
        return "an entry is set for a fault, and kvm_mmu_spte_requested is missing before it"
    return ""


def _emulated(order: Order, event: AnyEvent) -> str:
    order.emulated = True
    return _handled(order, event)


def _other(order: Order, event: e.Other) -> str:
    return _handled(order, event) if event.ev in HANDLED else ""


def _nested(order: Order, _: AnyEvent) -> str:
    """The MMU in use changes in the middle of an exit."""
    order.nested = True
    return ""


_CHECKS: dict[type[Any], Callable[[Order, Any], str]] = {
    e.Exit: _exit, e.VmEntry: _entry, e.PageFault: _page_fault, e.MmuPageFault: _mmu_page_fault, e.MmuPageFaultRet: _returned,
    e.Walk: _handled, e.PagingElement: _element, e.SpteRequested: _requested, e.SetSpte: _set, e.EmulateInsn: _emulated,
    e.FastPageFault: _handled, e.Cr: _handled, e.Invlpg: _emulated, e.InvalidateGva: _emulated, e.NestedVmenter: _nested,
    e.Other: _other, e.NestedVmexit: _nested, e.NestedVmexitInject: _nested,
}  # fmt: skip
