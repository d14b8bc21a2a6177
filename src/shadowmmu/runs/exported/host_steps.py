# SPDX-License-Identifier: GPL-2.0-only
"""The host of a list: what it is like, and what of the list is its part."""

from __future__ import annotations

from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.check.fuzz.operations import LARGE_FRAMES, PAGE, SLOTS, USER_MIB, Kind, Op
from shadowmmu.machine.host import Host, HostMemslot, HostStep

LOGS = 2
"""Of a memslot's flags: there is a dirty log."""


def host_of(guest: Guest) -> Host:
    """As the episode has made its own."""
    config = guest.vm.config
    slots = [_memslot(slot, first, pages, host, flags) for slot, (first, pages, host, flags) in sorted(guest.slots.slots.items())]
    return Host(
        memory_mib=USER_MIB,
        memslot=tuple(slots),
        shadow_pages=config.shadow_pages,
        nx_huge_pages=config.nx_huge_pages,
        eager_page_split=config.eager_page_split,
        pages_1g=config.pages_1g,
        manual_log="clear" if guest.manual_log else "",
        large=LARGE_FRAMES[1:],
    )


def host_steps(guest: Guest, op: Op) -> list[HostStep]:
    """What the host does of `op`, which has not been done yet; `at` is for whoever asks."""
    if op.kind == Kind.SLOT:
        slot, page, pages, flags = op[2:]
        host = guest.slots.host_of(slot, page) if slot in SLOTS or slot in guest.slots.behind else 0
        return [HostStep(at=0, do="memslot", memslot=_memslot(slot, page, pages, host, flags))]
    if op.kind == Kind.SWAP:
        return [HostStep(at=0, do="move", page=page) for page in range(op.a, op.a + op.b) if _moves(guest, page)]
    if op.kind == Kind.PROTECT:
        return [HostStep(at=0, do="protect", page=op.a, writable=bool(op.b))]
    if op.kind == Kind.ZAP_ALL:
        return [HostStep(at=0, do="zap-all")]
    if op.kind == Kind.DIRTY:
        first, pages, _, _ = guest.slots.slots.get(op.a, (0, 0, 0, 0))
        return [HostStep(at=0, do="dirty-log", slot=op.a, written=tuple(guest._dirty_pages(first, pages)))]
    if op.kind == Kind.OUTSIDE:
        value: int | str = op.c if op.c < 1 << 63 else hex(op.c)
        return [HostStep(at=0, do="store", address=op.a & -op.b, size=op.b, value=value)]  # type: ignore[arg-type]
    if op.a == 0:
        return [HostStep(at=0, do="limit-shadow-pages", count=op.b)]
    if op.a == 1:
        return [HostStep(at=0, do="reschedule", count=op.b)]
    return [HostStep(at=0, do=("invalidate", "age", "unprotect")[op.a - 2], page=op.b)]


def _memslot(slot: int, page: int, pages: int, host: int, flags: int) -> HostMemslot:
    return HostMemslot(slot=slot, page=page, pages=pages, host_page=host, readonly=bool(flags & 1), log_dirty=bool(flags & LOGS))


def _moves(guest: Guest, page: int) -> bool:
    outside = {hpa >> 12 for hpa in guest.oracle.unguarded.outside[4]}
    return guest.slots.may_store(page * PAGE) and (guest.slots.host(page * PAGE) or 0) >> 12 not in outside
