# SPDX-License-Identifier: GPL-2.0-only
"""What must stand before an event of one vCPU: an exit before its handling, a fault before its walk, a request before its entry.

Nothing is said of a kind that the trace has not told yet, as it may not be traced, nor of what began before a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shadowmmu.engine.arena.role import Role
from shadowmmu.runs.explained.walks import Walks
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.ftrace.access import is_qualification

PRESENT, WRITE, RESERVED, DIRECT, MINUS = 1, 2, 8, int(Role.DIRECT), 1 << 63
HANDLED = ("kvm_pio", "kvm_userspace_exit", "kvm_cpuid", "kvm_hypercall")
"""Events of the vCPU loop that come behind an exit only; writes of MSRs may be done before it is told."""


class Order:
    """Follows one vCPU from entry to entry; `take` says what is missing before an event, if anything is.

    requests_have_gfns  the kernel is known to tell a gfn in kvm_mmu_spte_requested; before 5.16 it was the faulting address's
    """

    def __init__(self, walks: Walks, requests_have_gfns: bool) -> None:
        self.walks = walks
        self.seen: set[type[AnyEvent]] = set()
        self.ept = False
        """Some walks may be of entries of an EPT."""
        self.alone = True
        """No other vCPU may set an entry meanwhile."""
        self.requests_have_gfns = requests_have_gfns
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
        self.requested = self.emulated = self.nested = self.handled_at_once = False
        self.wanted: e.SpteRequested | None = None
        """An entry that was requested, and is not told to be set yet."""
        self.new_table = False
        """The table that it lies in was made for it: it must be set."""
        self.empty = 0
        """The level of a page that was made for the fault: nothing hangs below it until the next page, of the next level, does."""
        self.writes = True
        """The fault under way may be of a write."""
        self.absent = False
        """The CPU met no present entry, and no page was linked since: the one that it wants is not there."""

    def take(self, event: AnyEvent) -> str:
        """An event of a kind that is in CHECKS."""
        kind = type(event)
        unfinished = self.walk_is_over() if kind in _BEHIND_WALKS else ""
        what = CHECKS[kind](self, event)
        self.seen.add(kind)
        return unfinished or what

    def walk_is_over(self) -> str:
        """What the walk before lacks, now that something comes of it. Of an EPT, whose entries have other bits, nothing is said."""
        if not self.whole or self.ept:
            return ""
        return self.walks.unfinished(self.has(e.SetAccessedBit))

    def has(self, kind: type[AnyEvent]) -> bool:
        return kind in self.seen

    @property
    def tells_faults(self) -> bool:
        """Each fault has an event of its own, behind its exit."""
        return self.whole and e.PageFault in self.seen


def _exit(order: Order, _: e.Exit) -> str:
    missing = order.inside is False and order.has(e.VmEntry)
    order.inside, order.whole = False, True
    order._begin()
    order.walks.end()
    return "an exit follows an exit: the entry between is missing" if missing else ""


def _entry(order: Order, _: e.VmEntry) -> str:
    missing = order.whole and order.fault is e.MmuPageFault and order.has(e.MmuPageFaultRet)
    unset = _not_set(order)
    again = order.inside and order.whole and order.has(e.Exit) and not order.handled_at_once
    order.inside, order.whole = True, True
    order._begin()
    order.walks.end()
    if again:
        return "an entry follows an entry: the exit between is missing"
    return "the guest is entered, and the fault before has not returned: mmu_page_fault_ret is missing" if missing else unset


def _handled(order: Order, event: AnyEvent) -> str:
    """Something that the host does for a vCPU which has left the guest."""
    if order.inside and order.has(e.Exit):
        order.inside = False
        return f"{getattr(event, 'ev', event.name)} while the guest runs: its exit is missing"
    return ""


def _page_fault(order: Order, event: e.PageFault) -> str:
    missing = _handled(order, event)
    order.fault = e.PageFault
    order.writes = bool(event.error_code & WRITE)
    order.absent = order.alone and not order.ept and not is_qualification(int(event.error_code)) and not event.error_code & PRESENT
    return missing


def _mmu_page_fault(order: Order, event: e.MmuPageFault) -> str:
    missing = _handled(order, event)
    if not missing and order.whole and order.fault is None and order.has(e.PageFault) and not int(event.err) & RESERVED:
        missing = "mmu_page_fault without kvm_page_fault before it"
    order.walks.end()
    order.fault = e.MmuPageFault
    return missing


def _returned(order: Order, event: e.MmuPageFaultRet) -> str:
    missing = order.whole and order.has(e.MmuPageFault) and order.fault is not e.MmuPageFault and not order.nested
    unset = _not_set(order) if not event.ret & MINUS else ""
    order._begin()
    order.walks.end()
    return f"{event.name} of a fault that is not told" if missing else unset


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
    order.requested, order.wanted = True, event
    order.walks.end()
    return missing


def _not_set(order: Order) -> str:
    """Something else follows an entry that was requested where nothing can have been before: in a new table, or the CPU met nothing."""
    wanted, order.wanted = order.wanted, None
    if wanted is None or not (order.new_table or order.absent) or not order.whole or not order.has(e.SetSpte):
        return ""
    return f"an entry of gfn {int(wanted.gfn):x} was requested where none was, and none is set"


def _got(order: Order, event: e.GetPage) -> str:
    """Tables of the guest come before what is requested, direct ones behind it. A root may be loaded at any time."""
    direct, level = bool(event.role & DIRECT), int(event.role) & 15
    order.new_table = bool(event.created) and level == 1
    order.absent &= order.new_table
    missing = _skipped(order, level + 1)
    order.empty = level if event.created and order.fault is not None else 0
    if missing:
        return missing
    if level != 1 or not order.whole or order.nested or order.fault is None or not order.has(e.SpteRequested):
        return ""
    if direct and not order.requested:
        return "a direct table is made for a fault, and kvm_mmu_spte_requested is missing before it"
    if not direct and order.wanted is not None:
        return "a guest's table is shadowed behind kvm_mmu_spte_requested, and comes before it"
    return ""


def _skipped(order: Order, table: int) -> str:
    """What comes behind a new page lies in it: an entry, or the page of the next level. `table`: the level of the table it does lie in."""
    empty, order.empty = order.empty, 0
    if empty <= table or not order.whole or order.nested or not order.has(e.GetPage):
        return ""
    return f"a page of level {empty} is made for a fault, and that of level {empty - 1} below it is missing"


def _marked(order: Order, _: e.MarkMmioSpte) -> str:
    order.wanted = None
    return ""


def _set(order: Order, event: e.SetSpte) -> str:
    wanted, order.wanted = order.wanted, None
    missing = _skipped(order, int(event.level)) if wanted is not None else ""
    if missing:
        return missing
    # One that is there already, for want of W, is not set again: what is then told first was prefetched.
    sure = order.whole and order.requests_have_gfns and (order.new_table or order.absent or not order.writes)
    if wanted is not None and sure and 1 <= event.level <= 3:
        shift = 9 * (int(event.level) - 1)
        if int(wanted.gfn) >> shift != int(event.gfn) >> shift:
            return f"an entry of gfn {int(wanted.gfn):x} is requested, and first one of gfn {int(event.gfn):x} is set"
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


def _bit_set(order: Order, event: e.SetAccessedBit | e.SetDirtyBit) -> str:
    if not order.whole or order.ept:
        return ""
    return order.walks.bit_set(int(event.gpa), isinstance(event, e.SetDirtyBit))


def _walker_error(order: Order, _: e.WalkerError) -> str:
    """The address is dropped as by INVLPG, which may set its entry."""
    order.walks.failed()
    order.emulated = True
    return ""


def _told(_order: Order, _event: AnyEvent) -> str:
    return ""


def _msr(order: Order, _: e.Msr) -> str:
    """A write of an MSR may be done before the exit is told, and the guest entered again."""
    order.handled_at_once = True
    return ""


def _nested(order: Order, _: AnyEvent) -> str:
    """The MMU in use changes in the middle of an exit."""
    order.nested = True
    return ""


CHECKS: dict[type[Any], Callable[[Order, Any], str]] = {
    e.Exit: _exit, e.VmEntry: _entry, e.PageFault: _page_fault, e.MmuPageFault: _mmu_page_fault, e.MmuPageFaultRet: _returned,
    e.Walk: _handled, e.PagingElement: _element, e.SpteRequested: _requested, e.SetSpte: _set, e.EmulateInsn: _emulated,
    e.FastPageFault: _handled, e.Cr: _handled, e.Invlpg: _emulated, e.InvalidateGva: _emulated, e.NestedVmenter: _nested,
    e.Other: _other, e.NestedVmexit: _nested, e.NestedVmexitInject: _nested, e.SetAccessedBit: _bit_set, e.SetDirtyBit: _bit_set,
    e.WalkerError: _walker_error, e.GetPage: _got, e.MarkMmioSpte: _marked, e.PteWrite: _told, e.InjException: _told, e.Msr: _msr,
}  # fmt: skip
_BEHIND_WALKS = frozenset((
    e.SpteRequested, e.GetPage, e.SetSpte, e.VmEntry, e.Exit, e.MmuPageFaultRet, e.PteWrite, e.EmulateInsn, e.InjException, e.FastPageFault,
))  # fmt: skip
"""What comes of a walk, and not in the middle of one."""
