# SPDX-License-Identifier: GPL-2.0-only
"""Origins of what is told of shadow pages: got, unsync, synced, zapped."""

from __future__ import annotations

from shadowmmu.engine.arena.role import Role
from shadowmmu.trace import events as e
from shadowmmu.trace.origins.origin import Around, case

_ZAPS = (e.PrepareZapPage, e.SyncPage)
"""What a zap tells while it is under way."""


def _level(page: e.PageEvent) -> int:
    return int(page.role & Role.LEVEL)


def is_root(at: Around) -> bool:
    return isinstance(at.last(e.MmuLoad, e.SyncRoots, e.LoadPgd, e.MmuPageFault, e.Walk), e.MmuLoad)


# --- zaps


def store_to_table(at: Around) -> e.PteWrite | None:
    """The emulated store to the page's guest table, if that is what happened last."""
    write = at.cause(*_ZAPS)
    return write if isinstance(write, e.PteWrite) and write.gpa >> 12 == at.event.gfn else None


def is_misaligned(at: Around) -> bool:
    """The store is not to one entry (detect_write_misaligned), an entry's first byte apart."""
    write = store_to_table(at)
    if write is None:
        return False
    size = 4 if at.event.role & Role.HAS_4_BYTE_GPTE else 8
    offset, length = write.gpa & 0xFFF, int(write.bytes)
    if length == 1 and not offset & (size - 1):
        return False
    return bool((offset ^ (offset + length - 1)) & ~(size - 1)) or length < 4


def is_l2_page_below_zapped(at: Around) -> bool:
    """A page of shadow NPT, and of those zapped just before the nearest of a higher level is L2's too."""
    if not at.nested_paging:
        return False
    for event in at.back():
        if not isinstance(event, _ZAPS):
            return False
        if isinstance(event, e.PrepareZapPage) and _level(event) > _level(at.event):
            return bool(event.role & at.event.role & Role.GUEST_MODE)
    return False


def is_unsync_below_zapped(at: Around) -> bool:
    """An unsync page, with nothing but others like it between it and a zapped page of a higher level."""
    if not at.event.unsync:
        return False
    above = next((event for event in at.back() if not isinstance(event, e.SyncPage) and not getattr(event, "unsync", False)), None)
    return isinstance(above, e.PrepareZapPage) and _level(above) > _level(at.event)


def is_synced_in_vain(at: Around) -> bool:
    """The same page was to be synced just before."""
    event = at.cause()
    return isinstance(event, e.SyncPage) and (event.gfn, event.role) == (at.event.gfn, at.event.role)


def is_in_the_way(at: Around) -> bool:
    """An unsync page, while none of its frame is being zapped for another reason, and a page of its gfn is being looked up."""
    return bool(at.event.unsync) and not isinstance(at.cause(*_ZAPS), e.ZapOldest | e.ZapAllFast)


def is_being_zapped(at: Around) -> bool:
    """The page itself was zapped just before."""
    for event in at.back():
        if not isinstance(event, _ZAPS):
            return False
        if isinstance(event, e.PrepareZapPage) and (event.gfn, event.role) == (at.event.gfn, at.event.role):
            return True
    return False


GET = (
    case(
        e.GetPage, "an existing page", "get_page.get_shadow_page", "kvm_mmu_find_shadow_page",
        "A valid page of this gfn and of exactly this role is used again; an unsync one is synced first, and stays unsync.",
        decider="get_page.find_shadow_page", ids="H4", when=lambda at: not at.event.created,
    ),
    case(
        e.GetPage, "a new root", "get_page.get_shadow_page", "mmu_alloc_root",
        "A root of 4 or 5 levels is the page of CR3's table; a legacy 3-level root holds four level-2 pages, made at once.",
        decider="root_page.alloc_root", ids="R16", when=is_root,
    ),
    case(
        e.GetPage, "a new direct page", "get_page.get_shadow_page", "kvm_mmu_get_child_sp",
        "Below the guest's last entry, and where there are no guest tables, pages map linear gfns, with the rights of that entry.",
        decider="fetch.build_direct", when=lambda at: bool(at.event.role & Role.DIRECT),
    ),
    case(
        e.GetPage, "a new page for a guest table", "get_page.get_shadow_page", "kvm_mmu_alloc_shadow_page",
        "The first fault through a guest table makes its page; the table is write-protected before its entry is read again.",
        decider="pages.alloc_shadow_page", ids="R13 H3 I3",
    ),
)  # fmt: skip

UNSYNC = (
    case(
        e.UnsyncPage, "", "unsync.unsync_page", "mmu_try_to_unsync_pages",
        "A level-1 table that is to be mapped writable is not write-protected: all its pages go unsync until the guest flushes.",
        decider="unsync.unsync_pages", ids="R5 I6 I8",
    ),
    case(
        e.SyncPage, "of a zapped page", "unsync.unlink_unsync_page", "kvm_unlink_unsync_page",
        "A page that is zapped counts as unsync no longer.",
        decider="zap.prepare_zap", when=is_being_zapped,
    ),
    case(
        e.SyncPage, "at a flush", "unsync.unlink_unsync_page", "mmu_sync_children",
        "When the guest flushes or loads a root, every unsync page below it is write-protected and made to agree with its table.",
        decider="roots.sync_roots", ids="R10 I6", when=lambda at: isinstance(at.last(e.SyncRoots, e.MmuPageFault), e.SyncRoots),
    ),
    case(
        e.SyncPage, "before a table is linked", "unsync.unlink_unsync_page", "mmu_sync_children",
        "What is unsync below a page is synced before the page is linked: the guest need not flush for an entry that becomes present.",
        decider="fetch.build_upper", ids="I6",
    ),
)  # fmt: skip

ZAP = (
    case(
        e.PrepareZapPage, "a root let go", "zap.prepare_zap", "mmu_free_root_page",
        "A page that was zapped while a root slot held it is freed with its last slot.",
        decider="root_page.put_root_page", ids="I5", when=lambda at: bool(at.event.role & Role.INVALID),
    ),
    case(
        e.PrepareZapPage, "an unsync page below a zapped one", "zap.prepare_zap", "mmu_zap_unsync_children",
        "Unsync pages are zapped with the page above them: without it the next sync would not find them.",
        decider="zap.zap_unsync_children", ids="I6", when=is_unsync_below_zapped,
    ),
    case(
        e.PrepareZapPage, "L2's page below a zapped one", "zap.prepare_zap", "mmu_page_zap_pte",
        "A page of shadow NPT that has lost its last parent is zapped too: it is unlikely to be used again.",
        decider="zap.zap_pte", ids="R15", when=is_l2_page_below_zapped,
    ),
    case(
        e.PrepareZapPage, "a misaligned write", "zap.prepare_zap", "kvm_mmu_pte_write",
        "A store to a table that is not to one entry: the page is data by now, or is being cleared.",
        decider="tracking.is_misaligned", when=is_misaligned,
    ),
    case(
        e.PrepareZapPage, "a flood of writes", "zap.prepare_zap", "kvm_mmu_pte_write",
        "The third store in a row to an upper-level table through which nobody walked meanwhile: it is no table any more.",
        decider="tracking.is_flooded", when=lambda at: store_to_table(at) is not None,
    ),
    case(
        e.PrepareZapPage, "unprotecting", "zap.prepare_zap", "kvm_mmu_unprotect_page",
        "All pages of this gfn go, so that its memory need not be write-protected.",
        decider="zap.unprotect_page", when=lambda at: isinstance(at.cause(*_ZAPS), e.UnprotectPage),
    ),
    case(
        e.PrepareZapPage, "everything", "zap.prepare_zap", "kvm_zap_obsolete_pages",
        "From the oldest page on, all that are of the generation that has just ended.",
        decider="zap.zap_obsolete_pages", ids="R4 R11 I4", when=lambda at: isinstance(at.cause(*_ZAPS), e.ZapAllFast),
    ),
    case(
        e.PrepareZapPage, "recycling", "zap.prepare_zap", "kvm_mmu_zap_oldest_mmu_pages",
        "The oldest page that no root slot holds, until there are enough pages again.",
        decider="zap.zap_oldest_pages", ids="R4 R6 I4", when=lambda at: isinstance(at.cause(*_ZAPS), e.ZapOldest),
    ),
    case(
        e.PrepareZapPage, "it cannot be synced", "zap.prepare_zap", "kvm_sync_page",
        "An unsync page of another paging mode than the MMU's, or whose table is gone, is zapped when it should be synced.",
        decider="sync.sync_sp", ids="H12", when=is_synced_in_vain,
    ),
    case(
        e.PrepareZapPage, "an unsync page in the way", "zap.prepare_zap", "kvm_mmu_find_shadow_page",
        "An upper-level page of the same gfn is being made, whose table must be write-protected: unsync pages of it go.",
        decider="get_page.find_shadow_page", ids="I8", when=is_in_the_way,
    ),
    case(
        e.PrepareZapPage, "L2's page is replaced", "zap.prepare_zap", "mmu_page_zap_pte",
        "Another page is linked in its place; a page of shadow NPT that has lost its last parent is zapped.",
        decider="fetch.unlink_present", ids="H4",
    ),
)  # fmt: skip

CASES = (*GET, *UNSYNC, *ZAP)
