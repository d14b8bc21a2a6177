# SPDX-License-Identifier: GPL-2.0-only
"""What each kind of event means in a trace whose order is known: what begins and ends a fault, and what else is followed."""

from __future__ import annotations

from typing import Any, NamedTuple

from shadowmmu.captures.markers import CLOSED_VM, CREATES_VM
from shadowmmu.engine.arena.role import Role
from shadowmmu.runs.explained.faults import CHANGES
from shadowmmu.runs.explained.followed import Cpu, Followed
from shadowmmu.runs.explained.order import CHECKS
from shadowmmu.runs.explained.pages import Pages
from shadowmmu.runs.explained.refusals import FETCH, RESERVED, WRITE, why_refused
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

OUR_FIRST = "exit 1:"
"""What stands first in a trace of `shadowmmu run`."""

# --- what begins and ends a fault


def _page_fault(seen: Followed, cpu: Cpu, event: e.PageFault) -> None:
    seen.begin_fault(cpu, int(event.fault_address), int(event.error_code), True)
    if not cpu.probed:  # the rules know a fault by the MMU's entry point
        cpu.before.append(e.MmuPageFault(addr=event.fault_address, err=event.error_code))


def _mmu_page_fault(seen: Followed, cpu: Cpu, event: e.MmuPageFault) -> None:
    cpu.probed = True
    if cpu.fault is None or cpu.fault.address != event.addr or cpu.fault.entered:
        seen.begin_fault(cpu, int(event.addr), int(event.err) & 0xFFFF_FFFF, True)
    assert cpu.fault is not None
    cpu.fault.entered = True


def _walk(seen: Followed, cpu: Cpu, event: e.Walk) -> None:
    """Where faults are told themselves, a walk outside of one is the emulator's."""
    fault = cpu.fault
    if (
        not cpu.probed
        and not cpu.exit_is_no_fault
        and not cpu.order.tells_faults
        and (fault is None or (not fault.told and (fault.sets or fault.refused >= 0 or fault.walked)))
    ):
        seen.begin_fault(cpu, int(event.addr), -1, False)


def _requested(seen: Followed, cpu: Cpu, event: e.SpteRequested) -> None:
    """Nested paging without events of exits: a fault of a direct MMU is known by what it asks for."""
    if cpu.probed:
        return
    if cpu.fault is None or (not cpu.fault.told and cpu.fault.requested):
        seen.begin_fault(cpu, int(event.gfn) << 12, -1, False)


def _fast(seen: Followed, cpu: Cpu, event: e.FastPageFault) -> None:
    if cpu.fault is None or cpu.fault.fast or cpu.fault.requested or (not cpu.fault.told and cpu.fault.walked):
        seen.begin_fault(cpu, int(event.cr2_or_gpa), int(event.error_code), False)


def _entry(seen: Followed, cpu: Cpu, event: e.VmEntry | e.Exit) -> None:
    seen.end_fault(cpu)
    cpu.exit_is_no_fault = isinstance(event, e.Exit) and seen.exit_is_no_fault
    cpu.order.ept = seen.ept


STARTS: dict[type[Any], Any] = {
    e.PageFault: _page_fault, e.MmuPageFault: _mmu_page_fault, e.Walk: _walk, e.SpteRequested: _requested, e.FastPageFault: _fast,
    e.VmEntry: _entry, e.Exit: _entry,
}  # fmt: skip

# --- what is followed


def _marked(seen: Followed, vm: int, cpu: Cpu, event: e.Marker) -> None:
    if event.text == CLOSED_VM and vm in seen.pages_of:
        seen.pages_of[vm].end(seen.number)
    elif event.text == CREATES_VM or event.text.startswith(OUR_FIRST):
        seen.pages_of[vm] = Pages(seen.found)
        seen.pages_of[vm].complete = True
        cpu.order.begins()


def _got(seen: Followed, vm: int, cpu: Cpu, event: e.GetPage) -> None:
    seen.pages(vm).got(seen.number, event)
    fault = cpu.fault
    if fault is not None and fault.walked == 1 and cpu.walks.top and not event.role & int(Role.GUEST_MODE):
        seen.answers(vm).page(seen.number, cpu.walks.top, event)


def _unsync(seen: Followed, vm: int, cpu: Cpu, event: e.UnsyncPage) -> None:
    seen.pages(vm).went_unsync(seen.number, event)


def _sync(seen: Followed, vm: int, cpu: Cpu, event: e.SyncPage) -> None:
    seen.pages(vm).was_synced(seen.number, event)
    seen.syncs[cpu.root] += 1


def _zap(seen: Followed, vm: int, cpu: Cpu, event: e.PrepareZapPage) -> None:
    pages = seen.pages(vm)
    pages.early = vm in seen.threads.early
    pages.was_zapped(seen.number, event)


def _zap_all(seen: Followed, vm: int, cpu: Cpu, event: e.ZapAllFast) -> None:
    seen.pages(vm).zapped_all(seen.number)
    cpu.sweeps = True


def _goes_on(seen: Followed, vm: int, cpu: Cpu, event: AnyEvent) -> None:
    """The thread that made all pages obsolete is done with them; of several VMs it may have been another's thread."""
    if cpu.sweeps:
        cpu.sweeps = False
        if len(seen.threads.vms) <= 1:
            seen.pages(vm).sweep_is_over(seen.number)


def _set(seen: Followed, vm: int, cpu: Cpu, event: e.SetSpte) -> None:
    seen.pages(vm).leaf(seen.number, event)
    seen.answers(vm).entry(seen.number, int(event.level), int(event.gfn))


def _mark(seen: Followed, vm: int, cpu: Cpu, event: e.MarkMmioSpte) -> None:
    seen.pages(vm).marked(event)


def _tdp(seen: Followed, vm: int, cpu: Cpu, event: e.TdpMmuSpteChanged) -> None:
    seen.pages(vm).tdp = True
    seen.answers(vm).changed(seen.number, event)


def _to_l2(seen: Followed, vm: int, cpu: Cpu, event: AnyEvent) -> None:
    cpu.in_l2 = isinstance(event, e.NestedVmenter)


def _begin_walk(seen: Followed, vm: int, cpu: Cpu, event: e.Walk) -> None:
    cpu.walks.begin(event)


def _step(seen: Followed, vm: int, cpu: Cpu, event: e.PagingElement) -> None:
    wrong = cpu.walks.step(event)
    if wrong:
        seen.found(seen.number, wrong)


def _unnamed(seen: Followed, vm: int, cpu: Cpu, event: e.Other) -> None:
    """Something became of a page, and the text does not say of which: nothing is known of pages any more."""
    if event.ev in _OF_PAGES:
        seen.pages(vm).forget()


def _refused(seen: Followed, vm: int, cpu: Cpu, event: e.WalkerError) -> None:
    """Reserved bits are met by accident or by design, never in passing; and of what the emulator may not do no fault tells."""
    address, access, entries = cpu.walks.newest
    why = "" if cpu.in_l2 else why_refused(entries, int(event.pferr))
    if not why:
        return
    if cpu.fault is not None:
        cpu.fault.why = why
    if event.pferr & RESERVED:
        seen.answers(vm).refused(seen.number, address, "a walk meets reserved bits, of", why)
    elif cpu.fault is None:
        kind = "fetch" if access & FETCH else "write" if access & WRITE else "read"
        seen.answers(vm).refused(seen.number, address, f"a {kind} by the emulator is refused, of", why)


def _cr3(seen: Followed, vm: int, cpu: Cpu, event: e.Cr) -> None:
    if event.rw and event.cr == 3:
        cpu.root = f"CR3 {int(event.val):x}"


def _new_pgd(seen: Followed, vm: int, cpu: Cpu, event: e.NewPgd) -> None:
    cpu.root = f"root {int(event.pgd):x}"


def _load_pgd(seen: Followed, vm: int, cpu: Cpu, event: e.LoadPgd) -> None:
    cpu.root = f"root at {int(event.root):x}, level {event.level}"


_OF_PAGES = ("kvm_mmu_prepare_zap_page", "kvm_mmu_sync_page", "kvm_mmu_unsync_page")
FOLLOWS: dict[type[Any], Any] = {
    e.Marker: _marked, e.GetPage: _got, e.UnsyncPage: _unsync, e.SyncPage: _sync, e.PrepareZapPage: _zap, e.ZapAllFast: _zap_all,
    e.MarkMmioSpte: _mark, e.TdpMmuSpteChanged: _tdp, e.NestedVmenter: _to_l2, e.NestedVmexitInject: _to_l2,
    e.SetSpte: _set, e.Walk: _begin_walk, e.WalkerError: _refused, e.Other: _unnamed, e.PagingElement: _step, e.Cr: _cr3,
    e.NewPgd: _new_pgd, e.LoadPgd: _load_pgd,
    e.VmEntry: _goes_on, e.Exit: _goes_on, e.MmuPageFault: _goes_on, e.PageFault: _goes_on,
}  # fmt: skip


class Plan(NamedTuple):
    """All that one kind of event means, looked up once. `checked`: something must stand before it."""

    starts: Any
    changes: Any
    checked: bool
    follows: Any


PLANS = {kind: Plan(STARTS.get(kind), CHANGES.get(kind), kind in CHECKS, FOLLOWS.get(kind)) for kind in AnyEvent.__args__}
