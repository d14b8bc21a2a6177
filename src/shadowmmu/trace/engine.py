# SPDX-License-Identifier: GPL-2.0-only
"""Reads the engine's fixed-size records as this grammar's events."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shadowmmu.engine.arena.events import Event as Kind
from shadowmmu.engine.face.types import EventRecord
from shadowmmu.engine.face.vm import Vm
from shadowmmu.trace import events as e
from shadowmmu.trace.fields import Entry, Leaf, Role, Word

_Reader = Callable[..., e.AnyEvent]


def _page(cls: type[e.SyncPage] | type[e.UnsyncPage] | type[e.PrepareZapPage]) -> _Reader:
    def read(vcpu: int, gfn: int, role: int, state: int, root_count: int, spt: int, _: int) -> e.AnyEvent:
        return cls(
            vcpu=vcpu,
            gfn=Word(gfn),
            role=Role(role),
            mmu_valid_gen=Word(state & 0xFF),
            root_count=Word(root_count),
            unsync=bool(state >> 8 & 1),
            spt=spt,
        )

    return read


def _get_page(vcpu: int, gfn: int, role: int, state: int, root_count: int, spt: int, _: int) -> e.AnyEvent:
    gen, unsync, created = state & 0xFF, bool(state >> 8 & 1), bool(state >> 9 & 1)
    return e.GetPage(
        vcpu=vcpu,
        gfn=Word(gfn),
        role=Role(role),
        mmu_valid_gen=Word(gen),
        root_count=Word(root_count),
        unsync=unsync,
        spt=spt,
        created=created,
    )


def _fast(vcpu: int, gva: int, code: int, sptep: int, old: int, new: int, ret: int) -> e.AnyEvent:
    return e.FastPageFault(
        vcpu=vcpu,
        cr2_or_gpa=Word(gva),
        error_code=Word(code),
        sptep=Entry(sptep),
        old_spte=Leaf(old),
        new_spte=Leaf(new),
        spurious=bool(ret & 1),
        fixed=bool(ret & 2),
    )


def _inject(vcpu: int, addr: int, pferr: int, nested: int, *_: int) -> e.AnyEvent:
    return e.InjectPageFault(vcpu=vcpu, addr=Word(addr), pferr=Word(pferr), nested=bool(nested))


def _walk(vcpu: int, addr: int, pferr: int, *_: int) -> e.AnyEvent:
    """The kernel's field is 32 bits wide."""
    return e.Walk(vcpu=vcpu, addr=Word(addr), pferr=Word(pferr & 0xFFFF_FFFF))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _ret(vcpu: int, ret: int, *_: int) -> e.AnyEvent:
    return e.MmuPageFaultRet(vcpu=vcpu, ret=Word(_signed(ret)))


def _split(vcpu: int, gfn: int, spte: int, level: int, errno: int, *_: int) -> e.AnyEvent:
    return e.SplitHugePage(vcpu=vcpu, gfn=Word(gfn), spte=Leaf(spte), level=Word(level), errno=Word(_signed(errno)))


def _in_order(cls: Callable[..., e.AnyEvent], *names: str) -> _Reader:
    """A reader for an event whose fields stand in the record in this order; an empty name skips one."""

    def read(vcpu: int, *values: int) -> e.AnyEvent:
        return cls(vcpu=vcpu, **{name: value for name, value in zip(names, values, strict=False) if name})

    return read


_READERS: dict[int, _Reader] = {
    Kind.KVM_MMU_PAGETABLE_WALK: _walk,
    Kind.KVM_MMU_PAGING_ELEMENT: _in_order(e.PagingElement, "pte", "level"),
    Kind.KVM_MMU_SET_ACCESSED_BIT: _in_order(e.SetAccessedBit, "gpa"),
    Kind.KVM_MMU_SET_DIRTY_BIT: _in_order(e.SetDirtyBit, "gpa"),
    Kind.KVM_MMU_WALKER_ERROR: _in_order(e.WalkerError, "pferr"),
    Kind.KVM_MMU_GET_PAGE: _get_page,
    Kind.KVM_MMU_SYNC_PAGE: _page(e.SyncPage),
    Kind.KVM_MMU_UNSYNC_PAGE: _page(e.UnsyncPage),
    Kind.KVM_MMU_PREPARE_ZAP_PAGE: _page(e.PrepareZapPage),
    Kind.MARK_MMIO_SPTE: _in_order(e.MarkMmioSpte, "sptep", "gfn", "access", "gen"),
    Kind.HANDLE_MMIO_PAGE_FAULT: _in_order(e.HandleMmioPageFault, "addr", "gfn", "access"),
    Kind.FAST_PAGE_FAULT: _fast,
    Kind.KVM_MMU_ZAP_ALL_FAST: _in_order(e.ZapAllFast, "mmu_valid_gen", "mmu_used_pages"),
    Kind.CHECK_MMIO_SPTE: _in_order(e.CheckMmioSpte, "spte", "kvm_gen", "spte_gen"),
    Kind.KVM_MMU_SET_SPTE: _in_order(e.SetSpte, "gfn", "spte", "sptep", "level"),
    Kind.KVM_MMU_SPTE_REQUESTED: _in_order(e.SpteRequested, "gfn", "pfn", "level"),
    Kind.KVM_MMU_SPLIT_HUGE_PAGE: _split,
    Kind.MMU_LOAD: _in_order(e.MmuLoad),
    Kind.NEW_PGD: _in_order(e.NewPgd, "pgd"),
    Kind.LOAD_PGD: _in_order(e.LoadPgd, "root", "level"),
    Kind.FREE_ROOTS: _in_order(e.FreeRoots, "roots"),
    Kind.RESET_CONTEXT: _in_order(e.ResetContext),
    Kind.SYNC_ROOTS: _in_order(e.SyncRoots),
    Kind.SYNC_PREV_ROOTS: _in_order(e.SyncPrevRoots),
    Kind.INVLPG: _in_order(e.Invlpg, "gva"),
    Kind.INVALIDATE_GVA: _in_order(e.InvalidateGva, "gva", "root"),
    Kind.PTE_WRITE: _in_order(e.PteWrite, "gpa", "bytes", "val"),
    Kind.UNPROTECT_PAGE: _in_order(e.UnprotectPage, "gfn"),
    Kind.MMU_PAGE_FAULT: _in_order(e.MmuPageFault, "addr", "err"),
    Kind.MMU_PAGE_FAULT_RET: _ret,
    Kind.ZAP_OLDEST: _in_order(e.ZapOldest),
    Kind.SLOT_REMOVE_WRITE: _in_order(e.SlotRemoveWrite, "", "level"),
    Kind.WRITE_PROTECT_PT_MASKED: _in_order(e.WriteProtectPtMasked, "", "gfn_off", "mask"),
    Kind.ZAP_COLLAPSIBLE: _in_order(e.ZapCollapsible),
    Kind.GUEST_TLB_FLUSH: _in_order(e.GuestTlbFlush),
    Kind.INJECT_PAGE_FAULT: _inject,
    Kind.SPECIAL_ALLOC: _in_order(e.SpecialAlloc, "role", "spt"),
    Kind.SPECIAL_FREE: _in_order(e.SpecialFree, "role", "spt"),
}


def from_record(record: EventRecord) -> e.AnyEvent:
    """One event from one record of `Vm.records`."""
    return _READERS[record.kind](record.vcpu, *record.fields)


def from_records(records: Iterable[EventRecord]) -> list[e.AnyEvent]:
    return [from_record(record) for record in records]


def events_of(vm: Vm) -> list[e.AnyEvent]:
    """What a VM has told since `Vm.start_trace`, or since this was asked last."""
    return from_records(vm.records())
