# SPDX-License-Identifier: GPL-2.0-only
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# Without a binding a method sees whom it is called on: `Vcpu.enter(vm)` is a TypeError, and no crash.
"""`Vm`: the engine for Python users, with its vCPUs (`Vcpu`). Addresses are in bytes unless a name says gfn.

A machine calls `Vcpu.enter` before every guest entry, `Vcpu.page_fault` for a #PF exit, and the setters for
control-register writes. Guest memory outside the MMU's knowledge is reached by `Vm.read_guest` and `write_guest`.
"""

from os import urandom

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    PAGE_SHIFT,
    PAGE_SIZE,
    EventRecord,
    EventRecordPtr,
    Hpa,
    HvaFlag,
    ManualProtect,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    destroy,
    gpa_t,
    p_u8,
    p_u64,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.face.arguments import word
from cython.cimports.shadowmmu.engine.face.create_vm import create_vm
from cython.cimports.shadowmmu.engine.face.host_access import frame_memory, is_guest_frame, only_marks
from cython.cimports.shadowmmu.engine.face.seal import restore_state, save_state
from cython.cimports.shadowmmu.engine.face.vcpu import make_vcpu
from cython.cimports.shadowmmu.engine.face.views import entries_of, view_page, view_slot
from cython.cimports.shadowmmu.engine.memory.guest_memory import InterleaveEvent, InterleavePoint, guest_bytes, read_guest, write_guest
from cython.cimports.shadowmmu.engine.memory.host_memory import (
    age_hva_range,
    back_by_level,
    discard_hva_range,
    host_writable,
    map_host_page,
    protect_hva_range,
    unmap_hva_range,
)
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, gfn_to_rmap, host_mapping, hva_entry, slot_by_id
from cython.cimports.shadowmmu.engine.pages.zap import change_mmu_pages, unprotect_page, zap_all_fast
from cython.cimports.shadowmmu.engine.slots.dirty import clear_dirty_log, get_dirty_log
from cython.cimports.shadowmmu.engine.slots.slot_update import SlotResult, slot_create, slot_delete, slot_move, slot_set_flags
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.engine.arena import state as engine_state
from shadowmmu.engine.face import types
from shadowmmu.engine.face.arguments import check_range, check_within_page
from shadowmmu.engine.face.config import MAX_TABLE_PAGES as _MAX_TABLE_PAGES
from shadowmmu.engine.face.config import VmConfig
from shadowmmu.engine.face.seal import SEAL as _SEAL
from shadowmmu.engine.face.types import GuestMemoryError, HostRegion, Memslot, MemslotError, ShadowPageView

_MAX_SLOT_ID = 32763  # KVM_USER_MEM_SLOTS - 1


@cython.final
@cython.cclass
class Vm:
    """A virtual machine's memory and shadow MMU, and its `vcpus`.

    Its keyword arguments are the fields of `VmConfig`, which `config` keeps. Arguments out of range raise ValueError, what
    is no number TypeError, words that 64 bits cannot hold OverflowError, here and in every method.
    A VM and its vCPUs belong to one thread at a time.
    """

    def __cinit__(self, **options: object):
        self.config = VmConfig(**options)
        self.kvm = create_vm(self.config)
        self.key = urandom(_SEAL)
        self.vcpus = tuple([make_vcpu(self, self.kvm, i) for i in range(self.config.vcpus)])
        if self.config.memory_mib:
            self.set_memslot(0, 0, self.config.memory_mib << 20)

    def __repr__(self) -> str:
        size: str = f"{self.memory_size >> 20} MiB, {len(self.vcpus)} vCPU{'s' if len(self.vcpus) > 1 else ''}"
        host: str = f"{self.config.vendor}, {'nested' if self.tdp else 'shadow'} paging on {self.host_levels} levels"
        return f"<Vm: {size}, {host}, {self.roots} roots, {self.kvm.n_used_mmu_pages} of {self.kvm.n_max_mmu_pages} shadow pages>"

    def __dealloc__(self):
        if self.kvm != cython.NULL:
            destroy(self.kvm)
        free(self.buffer)

    # --- memslots and memory

    @cython.cfunc
    def check_hva(self, hva: object, size: object) -> object:
        """Raise GuestMemoryError unless the range is whole pages of host user memory."""
        word("hva", hva)
        word("size", size)
        end: object = self.kvm.nhva * PAGE_SIZE
        if (hva | size) % PAGE_SIZE or hva + size > end:
            raise GuestMemoryError(f"user memory {hva:#x}+{size:#x} is not a page range below {end:#x}")
        return None

    @cython.cfunc
    def check_slot(self, result: cython.int, name: object) -> object:
        """Raise what a SlotResult other than OK means."""
        if result == SlotResult.SLOT_OVERLAPS:
            raise MemslotError(f"memslot {name} overlaps another one; delete or move that first")
        if result == SlotResult.SLOT_NO_ROOM:
            raise MemslotError(f"no room for memslot {name}: at most {MAX_SLOTS} slots; delete one first")
        if result == SlotResult.SLOT_UNKNOWN:
            raise MemslotError(f"memslot {name} does not exist; create it with a size first")
        return None

    def set_memslot(
        self,
        slot: int,
        gpa: int,
        size: int,
        hva: int | None = None,
        *,
        readonly: bool = False,
        log_dirty: bool = False,
        address_space: int = 0,
    ) -> None:
        """Create, move, re-flag or (size 0) delete a memslot, as KVM_SET_USER_MEMORY_REGION does.

        `hva` is the byte offset in the VM's host user memory, by default the same as `gpa`.
        """
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        check_range("slot", slot, 0, _MAX_SLOT_ID)
        for name, value in (("gpa", gpa), ("size", size), ("hva", gpa if hva is None else hva)):
            word(name, value)
        flags: int = (SlotFlag.SLOT_READONLY if readonly else 0) | (SlotFlag.SLOT_LOG_DIRTY if log_dirty else 0)
        if size == 0:
            self.check_slot(slot_delete(self.kvm, address_space, slot), slot)
            return
        base: int = gpa if hva is None else hva
        if (gpa | size | base) % PAGE_SIZE:
            raise MemslotError(f"memslot {slot}: gpa, size and hva must be multiples of 4096, not {gpa:#x}, {size:#x}, {base:#x}")
        if base + size > self.kvm.nhva * PAGE_SIZE:
            raise MemslotError(
                f"memslot {slot} ends at user memory {base + size:#x}, of {self.kvm.nhva * PAGE_SIZE:#x}; make the VM with more user_mib"
            )
        end: u64 = cython.cast(u64, 1) << (self.kvm.host_maxphyaddr if self.kvm.tdp else 52)  # kvm_mmu_max_gfn
        if gpa + size > end:
            raise MemslotError(f"memslot {slot} ends at {gpa + size:#x}, addresses end at {end:#x}; put it lower")
        old: MemSlotPtr = slot_by_id(self.kvm, address_space, slot)
        if old == cython.NULL:
            self.check_slot(slot_create(self.kvm, address_space, slot, gpa >> 12, size >> 12, base >> 12, flags), slot)
        elif old.npages != size >> 12 or old.hva != base >> 12 or (old.flags ^ flags) & SlotFlag.SLOT_READONLY:
            raise MemslotError(f"memslot {slot} cannot change its size, memory or `readonly`; delete it (size 0) and create it anew")
        elif old.base_gfn != gpa >> 12:
            self.check_slot(slot_move(self.kvm, address_space, slot, gpa >> 12, flags), slot)
        elif old.flags != flags:
            self.check_slot(slot_set_flags(self.kvm, address_space, slot, flags), slot)

    def read_guest(self, gpa: int, size: int, address_space: int = 0) -> bytes:
        """Read guest physical memory; raises GuestMemoryError outside the memslots."""
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        out: bytearray = bytearray(self.present_bytes(word("gpa", gpa), word("size", size), address_space, False))
        view: cython.uchar[:] = out
        start: u64 = gpa
        at: u64 = 0
        while at < size:
            part: u64 = min(size - at, PAGE_SIZE - (start + at) % PAGE_SIZE)
            read_guest(self.kvm, address_space, start + at, cython.address(view[at]), part)
            at += part
        return bytes(out)

    def write_guest(self, gpa: int, data: bytes, address_space: int = 0) -> None:
        """Store into guest physical memory behind the MMU's back, as a loader or the CPU's own store does: all or nothing."""
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        view: cython.const[cython.uchar][:] = data
        size: u64 = self.present_bytes(word("gpa", gpa), len(view), address_space, True)
        start: u64 = gpa
        at: u64 = 0
        while at < size:
            part: u64 = min(size - at, PAGE_SIZE - (start + at) % PAGE_SIZE)
            write_guest(self.kvm, address_space, start + at, cython.cast(cython.p_void, cython.address(view[at])), part)
            at += part

    @cython.cfunc
    @cython.exceptval(0xFFFFFFFFFFFFFFFF, check=True)
    def present_bytes(self, gpa: u64, size: u64, address_space: cython.int, write: cython.bint) -> u64:
        """`size`, if there is memory at each of the bytes from `gpa`, for `write` such as may be written."""
        at: u64 = 0
        while at < size:
            if guest_bytes(self.kvm, address_space, gpa + at, write) == cython.NULL:
                raise GuestMemoryError(f"no {'writable ' if write else ''}memory at guest physical {gpa + at:#x}")
            at += PAGE_SIZE - (gpa + at) % PAGE_SIZE
        return size

    def host_regions(self) -> list[HostRegion]:
        """Host physical memory: the zone below 4 GiB, then the one above."""
        low: int = self.kvm.low_frames * PAGE_SIZE
        base: int = cython.cast(u64, self.kvm.frames)
        return [HostRegion(0, low, base), HostRegion(int(Hpa.HIGH_ZONE), self.kvm.high_frames * PAGE_SIZE, base + low)]

    def read_host(self, hpa: int, size: int) -> bytes:
        """Read host physical memory within one page; raises GuestMemoryError where there is none."""
        at: p_u8 = frame_memory(self.kvm, word("hpa", hpa), word("size", size))
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}+{size:#x}")
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, at), size)

    def write_host(self, hpa: int, data: bytes) -> None:
        """Store into host physical memory within one page, as hardware does: anything into guest memory, A and D into tables."""
        at: p_u8 = frame_memory(self.kvm, word("hpa", hpa), len(data))
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}+{len(data):#x}")
        bytes_given: p_u8 = cython.cast(p_u8, PyBytes_AS_STRING(data))
        if not is_guest_frame(self.kvm, at) and not only_marks(self.kvm, at, bytes_given, len(data)):
            raise GuestMemoryError(f"host physical {hpa:#x} is not guest memory; hardware sets A and D of present entries there, no more")
        memcpy(at, bytes_given, len(data))

    def read_host_u64(self, hpa: int) -> int:
        """One aligned 8-byte word of host memory, e.g. a shadow entry."""
        at: p_u8 = frame_memory(self.kvm, word("hpa", hpa), 8)
        if hpa % 8:
            raise ValueError(f"hpa is {hpa:#x}; an 8-byte word lies at a multiple of 8")
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}")
        return cython.cast(p_u64, at)[0]

    def write_user(self, hva: int, data: bytes) -> None:
        """The VMM's process stores into its own memory: a page that it gave back gets a frame, shadows of the zeroes go."""
        word("hva", hva)
        self.check_hva(hva // PAGE_SIZE * PAGE_SIZE, (hva % PAGE_SIZE + len(data) + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE)
        at: int = 0
        while at < len(data):
            page: u64 = (hva + at) >> PAGE_SHIFT
            entry: u64 = map_host_page(self.kvm, page, True)
            if not host_writable(entry) or not entry & HvaFlag.HVA_PRESENT:
                raise GuestMemoryError(f"the host may not write user memory at {hva + at:#x}; make it writable first")
            offset: int = (hva + at) % PAGE_SIZE
            part: int = min(len(data) - at, PAGE_SIZE - offset)
            self.write_host((entry >> PAGE_SHIFT << PAGE_SHIFT) + offset, data[at : at + part])
            at += part

    def nothing_in(self, hpa: int) -> int:
        """What the entries of the table at `hpa` hold in which there is nothing: SHADOW_NONPRESENT_VALUE, 0 in PDPTEs and bare tables."""
        if frame_memory(self.kvm, word("hpa", hpa), 8) == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}")
        sp: ShadowPagePtr = to_shadow_page(self.kvm, hpa)
        return sp.nothing if sp != cython.NULL else 0

    def used_words(self, hpa: int, count: int, unused: int = 0) -> dict[int, int]:
        """Of `count` 8-byte words of host memory within one page those that are not `unused`, by their index: most of a table is."""
        check_range("count", count, 0, PAGE_SIZE // 8)
        at: p_u64 = cython.cast(p_u64, frame_memory(self.kvm, word("hpa", hpa), 8 * count))
        if at == cython.NULL:
            raise GuestMemoryError(f"no host memory at {hpa:#x}+{8 * count}")
        found: dict = {}
        i: cython.int
        words: cython.int = count
        nothing: u64 = word("unused", unused)
        for i in range(words):
            if at[i] != nothing:
                found[i] = at[i]
        return found

    def host_page(self, hva: int) -> int | None:
        """Host physical address of the frame that backs byte `hva` of user memory now; None if nothing does."""
        if word("hva", hva) >= self.kvm.nhva * PAGE_SIZE:
            return None
        entry: u64 = hva_entry(self.kvm, hva >> 12)
        return (entry >> PAGE_SHIFT) << PAGE_SHIFT if entry & HvaFlag.HVA_PRESENT else None

    def host_address(self, gpa: int, address_space: int = 0) -> int | None:
        """Host physical address of the byte at guest physical `gpa` now; None: no memslot, or the host has no page there."""
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        at: gpa_t = word("gpa", gpa)
        slot: MemSlotPtr = gfn_to_memslot(self.kvm, address_space, at >> PAGE_SHIFT)
        if slot == cython.NULL:
            return None
        entry: u64 = host_mapping(self.kvm, slot, at >> PAGE_SHIFT)
        return (entry & Pte.ADDR) | (at & (PAGE_SIZE - 1)) if entry & HvaFlag.HVA_PRESENT else None

    def set_host_page_level(self, hva: int, size: int, level: int) -> None:
        """Back a range of user memory by host pages of `level` (1: 4K, 2: 2M, 3: 1G); aligned to that size."""
        check_range("level", level, 1, 3)
        self.check_hva(hva, size)
        if (hva | size) % (PAGE_SIZE << 9 * (level - 1)):
            raise GuestMemoryError(f"user memory {hva:#x}+{size:#x} is not whole host pages of level {level}; align both")
        if not back_by_level(self.kvm, hva >> 12, (hva + size) >> 12, level):
            raise GuestMemoryError(
                f"user memory {hva:#x}+{size:#x} cannot be host pages of level {level}: not all its frames lie in a row, present and alike"
            )

    def unmap_hva(self, hva: int, size: int) -> None:
        """The host gives the pages back (MADV_DONTNEED); the next read finds zeroes, the next write a new frame."""
        self.check_hva(hva, size)
        discard_hva_range(self.kvm, hva >> 12, (hva + size) >> 12)

    def invalidate_hva(self, hva: int, size: int) -> None:
        """The host's own tables for the range change, its pages do not (a VMA is split, say): translations are found anew."""
        self.check_hva(hva, size)
        unmap_hva_range(self.kvm, hva >> 12, (hva + size) >> 12)

    def age_hva(self, hva: int, size: int) -> bool:
        """The host looks which of the pages are in use, and forgets it (mmu_notifier_clear_young): whether one was since the last time."""
        self.check_hva(hva, size)
        return age_hva_range(self.kvm, hva >> 12, (hva + size) >> 12)

    def write_protect_hva(self, hva: int, size: int, writable: bool = False) -> None:
        """The host changes its right to write the pages (mprotect)."""
        self.check_hva(hva, size)
        protect_hva_range(self.kvm, hva >> 12, (hva + size) >> 12, writable)

    def set_manual_dirty_log_protect(self, manual: bool = True, initially_set: bool = False) -> None:
        """KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: reading a log does not clear it any more, `clear_dirty_log` does.

        `initially_set`: logs that begin from now on have all pages dirty, and protect them when they are cleared.
        """
        if initially_set and not manual:
            raise ValueError("initially_set needs manual: a log that reading clears cannot begin with all pages dirty")
        bits: cython.int = (ManualProtect.MANUAL_PROTECT if manual else 0) | (ManualProtect.INITIALLY_SET if initially_set else 0)
        self.kvm.manual_dirty_log_protect = bits

    def get_dirty_log(self, slot: int, address_space: int = 0) -> bytes:
        """The slot's dirty bitmap, whole 8-byte words with one bit a page, cleared by the call; dirty pages are protected again."""
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        check_range("slot", slot, 0, _MAX_SLOT_ID)
        found: MemSlotPtr = slot_by_id(self.kvm, address_space, slot)
        if found == cython.NULL:
            raise MemslotError(f"memslot {slot} does not exist; create it with a size first")
        out = bytearray((found.npages + 63) // 64 * 8)
        view: cython.uchar[:] = out
        get_dirty_log(self.kvm, found, cython.cast(p_u64, cython.address(view[0])))
        return bytes(out)

    def clear_dirty_log(self, slot: int, first_page: int, pages: int, bitmap: bytes, address_space: int = 0) -> None:
        """KVM_CLEAR_DIRTY_LOG: of `pages` pages of the slot, those with a bit in `bitmap` are clean, and protected again.

        `first_page` is a multiple of 64, and so is `pages`, unless they are the slot's last.
        """
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        check_range("slot", slot, 0, _MAX_SLOT_ID)
        found: MemSlotPtr = slot_by_id(self.kvm, address_space, slot)
        if found == cython.NULL or not found.flags & SlotFlag.SLOT_LOG_DIRTY:
            raise MemslotError(f"memslot {slot} keeps no dirty log; set it with log_dirty first")
        check_range("first_page", first_page, 0, found.npages)
        check_range("pages", pages, 0, found.npages - first_page)
        if first_page % 64 or (pages % 64 and first_page + pages != found.npages):
            raise ValueError(f"pages {first_page} to {first_page + pages} are not whole words of 64 of the log; widen them")
        if len(bitmap) != (pages + 63) // 64 * 8:
            raise ValueError(f"the bitmap has {len(bitmap)} bytes; {pages} pages need {(pages + 63) // 64 * 8}")
        if pages:
            clear_dirty_log(self.kvm, found, first_page, pages, cython.cast(p_u64, cython.cast(cython.p_char, bitmap)))

    # --- the MMU as a whole

    def zap_all_fast(self) -> None:
        """Make every page obsolete by toggling the generation (kvm_mmu_zap_all_fast); vCPUs load new roots."""
        zap_all_fast(self.kvm)

    def unprotect_page(self, gfn: int) -> bool:
        """Stop shadowing the guest table at `gfn`; True if a page went: a root that is in use stays, zapped."""
        return unprotect_page(self.kvm, word("gfn", gfn))

    def set_shadow_pages(self, limit: int) -> None:
        """KVM_SET_NR_MMU_PAGES: at least 64; the oldest pages beyond `limit` are zapped."""
        check_range("limit", limit, 64, self.kvm.npages_pool)
        self.kvm.n_requested_mmu_pages = limit
        change_mmu_pages(self.kvm, limit)

    def reschedule(self, pages: int) -> None:
        """Another task wants the CPU once so many more pages below others have been synced; 0: none does. A fault is then retried."""
        check_range("pages", pages, 0, _MAX_TABLE_PAGES)
        self.kvm.resched_after = pages

    def arm_interleave(self, point: int, gpa: int, value: int, size: int, event: int = 0) -> None:
        """Let another CPU store `value` at `gpa` when the next fault passes `point`, once; 0 disarms it.

        The points are those of `engine.memory.guest_memory.InterleavePoint`. The store has 1 to 8 bytes in one page; where
        there is no memory by then it goes nowhere. `event`, an `InterleaveEvent`, lets something else happen instead, after the walk.
        """
        check_range("point", point, 0, InterleavePoint.BEFORE_GET_PAGE)
        check_range("size", size, 1, 8)
        check_within_page("gpa", gpa, size, 8)
        check_range("event", event, 0, InterleaveEvent.MOVE_PAGE)
        if event and point == InterleavePoint.BEFORE_GET_PAGE:
            raise ValueError("event: only a store can come while the MMU is locked; give point 1")
        store: u64 = word("value", value)
        self.kvm.interleave.event = event
        self.kvm.interleave.point = point
        self.kvm.interleave.gpa = gpa
        self.kvm.interleave.value = store
        self.kvm.interleave.size = size

    @property
    def tdp(self) -> bool:
        """L1 runs on direct tables: its own page tables are walked by the CPU, and it may be offered nested paging."""
        return bool(self.kvm.tdp)

    @property
    def roots(self) -> str:
        """The root design: a name of `ROOT_DESIGNS`."""
        return self.config.roots

    @property
    def host_levels(self) -> int:
        """Levels of the host's own paging."""
        return self.config.host_levels

    @property
    def maxphyaddr(self) -> int:
        """Width of the guest's physical addresses, bits."""
        return self.kvm.maxphyaddr

    @property
    def host_maxphyaddr(self) -> int:
        """Width of the host's physical addresses, bits."""
        return self.kvm.host_maxphyaddr

    @property
    def memory_size(self) -> int:
        """Bytes of guest memory in the memslots of address space 0."""
        return self.kvm.nr_memslot_pages * PAGE_SIZE

    @property
    def generation(self) -> int:
        """The generation of shadow pages, one bit: pages of the other are obsolete."""
        return self.kvm.mmu_valid_gen

    def memslots(self) -> list[Memslot]:
        """Those of all address spaces."""
        return [
            view_slot(cython.address(self.kvm.slots[as_id][i]))
            for as_id in range(ADDRESS_SPACES)
            for i in range(MAX_SLOTS)
            if self.kvm.slots[as_id][i].npages
        ]

    def counters(self) -> dict[str, int]:
        """The debugfs counters by their kernel names, which are the fields of VmStat and VcpuStat; the latter are summed."""
        result: dict = self.kvm.stat
        i: cython.int
        for i in range(self.kvm.nvcpus):
            counted: dict = self.kvm.vcpus[i].stat
            for name, value in counted.items():
                result[name] = result.get(name, 0) + value
        result["n_used_mmu_pages"] = self.kvm.n_used_mmu_pages
        result["n_max_mmu_pages"] = self.kvm.n_max_mmu_pages
        result["indirect_shadow_pages"] = self.kvm.indirect_shadow_pages
        return result

    def bugs(self) -> list[str]:
        """Names of the kernel's WARNs and BUGs that were hit; empty in a correct engine."""
        return [bug.name for bug in engine_state.Bug if self.kvm.bugs >> int(bug) & 1] if self.kvm.bugs else []

    # --- events

    def start_trace(self, capacity: int = 1 << 16) -> None:
        """Record events from now on, up to `capacity` between two calls of `records`."""
        check_range("capacity", capacity, 1, 1 << 40)
        self.stop_trace()
        free(self.buffer)
        self.buffer = cython.cast(EventRecordPtr, calloc(capacity, cython.sizeof(EventRecord)))
        if self.buffer == cython.NULL:
            raise MemoryError(f"no memory for {capacity} event records; ask for fewer")
        self.kvm.events = self.buffer
        self.kvm.max_events = capacity
        self.kvm.nevents = 0
        self.kvm.lost_events = 0

    def stop_trace(self) -> None:
        """Record no more; what `records` was not asked for is dropped."""
        self.kvm.events = cython.NULL
        self.kvm.nevents = 0

    def records(self) -> list[EventRecord]:
        """Events since the last call, in order; `trace.engine.from_record` reads them."""
        found = []
        i: u64 = 0
        while i < self.kvm.nevents:  # a garbage collection here may run code that ends the trace
            e: EventRecord = self.kvm.events[i]
            vcpu: cython.int = -1 if e.vcpu == 0xFFFF else e.vcpu
            found.append(types.EventRecord(e.kind, vcpu, (e.a[0], e.a[1], e.a[2], e.a[3], e.a[4], e.a[5])))
            i += 1
        self.kvm.nevents = 0
        return found

    @property
    def lost_events(self) -> int:
        """Events that found the buffer full."""
        return self.kvm.lost_events

    # --- looking at shadow pages

    def shadow_pages(self) -> list[ShadowPageView]:
        """Every shadow page in existence, special ones and invalid roots included."""
        found = []
        i: u64
        for i in range(self.kvm.npages_carved):
            if self.kvm.pages[i].live:
                found.append(view_page(self.kvm, cython.address(self.kvm.pages[i])))
        return found

    def shadow_page(self, hpa: int) -> ShadowPageView | None:
        """The shadow page whose table holds the byte at `hpa`; None for bare tables and other memory."""
        if frame_memory(self.kvm, word("hpa", hpa), 1) == cython.NULL:
            return None
        sp: ShadowPagePtr = to_shadow_page(self.kvm, hpa)
        return None if sp == cython.NULL else view_page(self.kvm, sp)

    def rmap(self, gpa: int, level: int = 1, address_space: int = 0) -> list[int]:
        """Host physical addresses of the entries of `level` that map guest address `gpa`."""
        check_range("level", level, 1, 3)
        check_range("address_space", address_space, 0, ADDRESS_SPACES - 1)
        slot: MemSlotPtr = gfn_to_memslot(self.kvm, address_space, word("gpa", gpa) >> 12)
        return [] if slot == cython.NULL else entries_of(self.kvm, gfn_to_rmap(slot, gpa >> 12, level)[0])

    # --- whole states

    def save(self) -> bytes:
        """The whole state as bytes, valid for `restore` on this VM."""
        return save_state(self.kvm, self.key)

    def restore(self, state: bytes) -> None:
        """Go back to a state that `save` of this VM gave; raises ValueError for anything else, a changed one too."""
        restore_state(self.kvm, self.key, state)
