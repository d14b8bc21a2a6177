# SPDX-License-Identifier: GPL-2.0-only
"""The host around the engine: a VM made as the capture's host was, and the actions of its VMM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from shadowmmu import MemslotError, Vcpu, Vm
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.markers import Mark, parse
from shadowmmu.captures.validate import UNMAPPED
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.replayed.user_memory import UserMemory
from shadowmmu.trace.events import AnyEvent, Marker, Other

SHADOW_TABLES = 2000
"""Room for the most shadow pages that can exist; the limit itself follows the memory size, as in the kernel."""
FEWEST_PAGES = 64
"""KVM_MIN_ALLOC_MMU_PAGES: the kernel refuses KVM_SET_NR_MMU_PAGES below, and nothing changes."""


class ReplayedHost:
    """User memory, memslots, and what the VMM does to them."""

    def __init__(self, capture: Capture, roots: str, matcher: Matcher) -> None:
        self.capture = capture
        self.matcher = matcher
        self._wider = wider_ranges(capture.events)
        memory = UserMemory(capture)
        self.regions = memory.regions
        """(slot, size) -> byte offset in user memory. A slot keeps its memory while its size stays."""
        self.vm = Vm(
            memory_mib=0,
            user_mib=(memory.end >> 20) + 4,
            roots=roots,
            table_pages=SHADOW_TABLES,
            vcpus=max(capture.vcpus, 1),
            **capture.setup.cpu_and_host,
        )
        self.live: dict[int, tuple[int, int, int]] = {}
        """Slot -> gpa, size, offset in user memory."""
        slots = (mark for mark in map(parse, capture.markers) if mark.action == "slot" and "hva" in mark)
        self.hvas = {(mark["id"], mark["size"]): mark["hva"] for mark in slots}
        """(slot, size) -> where its memory was in the captured VMM, as far as it is told."""
        self.readonly: set[int] = set()
        """Slots that the guest may not write."""
        self.protected: set[int] = set()
        """Where the host may not write: offsets in user memory."""
        self.hugetlb: dict[range, int] = {}
        """Parts of user memory that are hugetlb, and the size of their pages."""
        for start, size, kind in memory.huge_pages():
            self.vm.set_host_page_level(start, size, kind.level)
            if kind.hugetlb:
                self.hugetlb[range(start, start + size)] = kind.page_size

    def seed_frames(self) -> None:
        """Tell the matcher which frames hold the same guest page. Pages that the host drops are left to be found."""
        last, dropped = self._history()
        for slot, gfn, pfn, count in self.capture.frames:
            if slot not in last:
                continue
            gpa, size = last[slot]
            first = (self.regions[slot, size] + (gfn << 12) - gpa) >> 12
            for i in range(count):
                page = None if first + i in dropped else self.vm.host_page((first + i) << 12)
                if page is not None:
                    self.matcher.frames.agree(pfn + i, page >> 12)

    def _history(self) -> tuple[dict[int, tuple[int, int]], set[int]]:
        """Where each slot last was (gpa, size), and the pages of user memory that the host ever dropped."""
        last: dict[int, tuple[int, int]] = {}
        dropped: set[int] = set()
        for event in self.capture.events:
            mark = parse(event) if isinstance(event, Marker) else None
            if mark is None:
                continue
            if mark.action == "slot" and mark["size"]:
                last[mark["id"]] = mark["gpa"], mark["size"]
            elif mark.action == "madvise_dontneed":
                for slot, (gpa, size) in last.items():
                    if gpa <= mark["gpa"] < gpa + size:
                        start = self.regions[slot, size] + mark["gpa"] - gpa
                        dropped.update(range(start >> 12, (start + mark["size"] + 0xFFF) >> 12))
        return last, dropped

    def hva(self, gpa: int) -> int | None:
        for base, size, offset in self.live.values():
            if base <= gpa < base + size:
                return offset + gpa - base
        return None

    def load_image(self) -> None:
        for gpa, data in self.capture.image:
            self.vm.write_guest(gpa, data)

    @staticmethod
    def set_sregs(vcpu: Vcpu, registers: Mapping[str, int]) -> None:
        """KVM_SET_SREGS. Raises ValueError for registers that KVM refuses: the VMM gives up at that, and there is nothing to capture."""
        told = {name: registers[name] for name in ("cr0", "cr3", "cr4", "efer")}
        vcpu.set_sregs(**told)
        if told != {name: getattr(vcpu, name) for name in told}:  # taken they are also if a PDPTE is bad
            words = ", ".join(f"{name.upper()} {value:#x}" for name, value in told.items())
            raise ValueError(f"its VMM sets {words}, which no CPU has together")

    def act(self, mark: Mark) -> None:
        """Do what the VMM did."""
        action = _ACTIONS.get(mark.action)
        if action is not None:
            action(self, mark)

    def _slot(self, mark: Mark) -> None:
        """KVM_SET_USER_MEMORY_REGION: a slot is made, moved, deleted or given other flags."""
        slot, gpa, size, flags = mark["id"], mark["gpa"], mark["size"], mark["flags"]
        if not size:
            self.vm.set_memslot(slot, gpa, 0)
            self.live.pop(slot, None)
            return
        hva = self.regions[slot, size]
        self.vm.set_memslot(slot, gpa, size, hva, log_dirty=bool(flags & 1), readonly=bool(flags & 2))
        self.live[slot] = gpa, size, hva
        (self.readonly.add if flags & 2 else self.readonly.discard)(slot)

    def age(self, start: int, end: int) -> None:
        """The captured host looked whether these bytes of the VMM's memory are in use."""
        for slot, (_, size, offset) in self.live.items():
            base = self.hvas.get((slot, size), 0)
            first, last = max(start, base), min(end, base + size)
            if first < last:
                self.vm.age_hva(offset + first - base, last - first)

    def _madvise_dontneed(self, mark: Mark) -> None:
        hva, size = self.hva(mark["gpa"]), mark["size"]
        if hva is None:
            return
        huge = next((page_size for part, page_size in self.hugetlb.items() if hva in part), 0)
        if huge:
            size = 0 if hva % huge else size // huge * huge  # the host gives back whole huge pages, or refuses
        if not size:
            return
        for page in range(hva, hva + size, 4096):
            frame = self.vm.host_page(page)
            if frame is not None:
                self.matcher.frames.forget(frame >> 12)
                if huge:
                    self.vm.write_host(frame, bytes(4096))
        if huge:
            self.vm.write_protect_hva(hva, size, True)  # unmapped from the guest; the next touch brings another huge page
        else:
            self.vm.unmap_hva(hva, size)

    def _mprotect(self, mark: Mark) -> None:
        wider = next(self._wider, None)
        hva = self.hva(mark["gpa"])
        if hva is None or wider is None:
            return
        region = next(range(start, start + size) for _, size, start in self.live.values() if start <= hva < start + size)
        for before, size in wider:
            start, end = max(hva - before, region.start), min(hva - before + size, region.stop)
            self.vm.invalidate_hva(start, end - start)
        self.vm.write_protect_hva(hva, mark["size"], bool(mark["w"]))
        (self.protected.difference_update if mark["w"] else self.protected.update)(range(hva, hva + mark["size"], 4096))

    def _poke(self, mark: Mark) -> None:
        hva = self.hva(mark["gpa"])
        if hva is not None:
            self.vm.write_user(hva, (mark["val"] & (1 << 8 * mark["len"]) - 1).to_bytes(mark["len"], "little"))

    def _manual_protect(self, mark: Mark) -> None:
        self.vm.set_manual_dirty_log_protect(bool(mark["flags"] & 1), bool(mark["flags"] & 2))

    def _clear_dirty_log(self, mark: Mark) -> None:
        """KVM_CLEAR_DIRTY_LOG of some pages, all of them; what the kernel refuses changes nothing here either."""
        with suppress(ValueError, MemslotError):
            self.vm.clear_dirty_log(mark["slot"], mark["first"], mark["count"], b"\xff" * ((mark["count"] + 63) // 64 * 8))

    def _set_nr_mmu_pages(self, mark: Mark) -> None:
        if mark.number >= FEWEST_PAGES:
            self.vm.set_shadow_pages(mark.number)


def wider_ranges(events: Sequence[AnyEvent]) -> Iterator[list[tuple[int, int]] | None]:
    """For each mprotect of the VMM, the other ranges that the MMU notifier then reported: bytes from their start to the protected
    range, and their size. None: it reported nothing at all, as the protection stays what it is.

    mprotect splits the host's VMA. Where the border lies within 2 MiB of it that could be a huge page, mm/huge_memory.c
    (`vma_adjust_trans_huge`) has these 2 MiB of user memory invalidated, whether a huge page is there or not.
    """
    protected, ranges = None, list[tuple[int, int]]()
    for event in events:
        if isinstance(event, Marker):
            if protected is not None:
                yield _relative(protected, ranges)
            mark = parse(event)
            protected, ranges = (mark["size"] if mark.action == "mprotect" else None), []
        elif isinstance(event, Other) and event.ev == UNMAPPED:
            ranges.append((int(event.fields["start"]), int(event.fields["end"])))


def _relative(size: int, ranges: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
    own = next((start for start, end in reversed(ranges) if end - start == size), None)
    return None if own is None else [(own - start, end - start) for start, end in ranges if end - start != size]


_ACTIONS: dict[str, Callable[[ReplayedHost, Mark], None]] = {
    "slot": ReplayedHost._slot,
    "madvise_dontneed": ReplayedHost._madvise_dontneed,
    "mprotect": ReplayedHost._mprotect,
    "poke": ReplayedHost._poke,
    "manual_protect": ReplayedHost._manual_protect,
    "clear_dirty_log": ReplayedHost._clear_dirty_log,
    "set_nr_mmu_pages": ReplayedHost._set_nr_mmu_pages,
}
