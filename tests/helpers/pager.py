# SPDX-License-Identifier: GPL-2.0-only
"""A naive pager with the engine's face: shadow tables that are thrown away at every invalidation.

It exists to test the judges: correct as it stands, and with one named fault planted at a time it must be caught.
It shares the page walk with the judges, so it says nothing about that; the unit tests of the walk do.
"""

import ctypes
import mmap
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from shadowmmu import HostFault, TripleFault
from shadowmmu.check.fuzz.illegal import is_refused
from shadowmmu.engine.face.config import VmConfig
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.walk import USER, WRITE, Paging, Translation, paging, walk

PAGE = 4096
HIGH = 1 << 32
LOW_FRAMES, HIGH_FRAMES, TABLE_FRAMES = 16, 4000, 400  # of the high frames each vCPU has 400 for its tables
EFER_LMA = 0x400

FAULTS = (
    "no flush",
    "cr3 keeps tables",
    "invlpg keeps tables",
    "writable while clean",
    "writable to all",
    "user to all",
    "executable to all",
    "wrong frame",
    "slot kept",
    "frame kept",
    "no A",
    "D on reads",
    "no RSVD",
    "wrong address",
    "needless fault",
    "no progress",
    "PDPTE unchecked",
    "root too high",
    "not logged",
    "read-only slot written",
    "emulator off by one page",
    "triple fault",
)


class Outcome(Enum):
    RETRY, FIXED, SPURIOUS, EMULATE, INJECT, ERROR = range(6)


class Entry(NamedTuple):
    root: int
    level: int
    flush_all: bool
    flush_gvas: tuple[int, ...] = ()


class Slot(NamedTuple):
    gpa: int
    size: int
    hva: int
    readonly: bool
    log_dirty: bool
    dirty: set[int]


class Pager:
    """A VM of the face. `fault` is one of FAULTS, or empty."""

    def __init__(
        self, *, vcpus: int = 1, fault: str = "", vendor: str = "svm", guest_vendor: str = "host", pages_1g: bool = True, **_ignored: Any
    ) -> None:
        self.fault, self.generation = fault, 0
        self.config = VmConfig(vendor=vendor, guest_vendor=guest_vendor, pages_1g=pages_1g)
        self.features = hw.features_of(self.config)
        self._memory = mmap.mmap(-1, (LOW_FRAMES + HIGH_FRAMES) * PAGE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._free = list(range(2 * TABLE_FRAMES, HIGH_FRAMES))
        self._frames: dict[int, int] = {}
        self._slots: dict[int, Slot] = {}
        self._protected: set[int] = set()
        self.vcpus = tuple(PagerVcpu(self, i) for i in range(vcpus))

    def host_regions(self) -> list[tuple[int, int, int]]:
        low = LOW_FRAMES * PAGE
        return [(0, low, self._address), (HIGH, HIGH_FRAMES * PAGE, self._address + low)]

    def read_host(self, hpa: int, size: int) -> bytes:
        at = hpa if hpa < HIGH else hpa - HIGH + LOW_FRAMES * PAGE
        return self._memory[at : at + size]

    def write_host(self, hpa: int, data: bytes) -> None:
        at = hpa if hpa < HIGH else hpa - HIGH + LOW_FRAMES * PAGE
        self._memory[at : at + len(data)] = data

    def host_page(self, hva: int) -> int | None:
        frame = self._frames.get(hva // PAGE)
        return None if frame is None else HIGH + frame * PAGE

    def touch(self, hva: int) -> int:
        """The page behind `hva`, made if it is not there."""
        if hva // PAGE not in self._frames:
            self._frames[hva // PAGE] = self._free.pop(0)
            self.write_host(HIGH + self._frames[hva // PAGE] * PAGE, bytes(PAGE))
        return HIGH + self._frames[hva // PAGE] * PAGE

    def slot(self, gpa: int) -> Slot | None:
        return next((s for s in self._slots.values() if s.gpa <= gpa < s.gpa + s.size), None)

    def host(self, gpa: int) -> int | None:
        slot = self.slot(gpa)
        return None if slot is None else self.touch(slot.hva + gpa - slot.gpa) | gpa & (PAGE - 1)

    def set_memslot(
        self,
        slot: int,
        gpa: int,
        size: int,
        hva: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        address_space: int = 0,
    ) -> None:
        """The other address space has the same slots: one set serves both. A log goes on when its slot moves."""
        if address_space:
            return
        had = self._slots.pop(slot, None)
        if size:
            dirty = had.dirty if had is not None and had.log_dirty and log_dirty else set[int]()
            self._slots[slot] = Slot(gpa, size, gpa if hva is None else hva, readonly, log_dirty, dirty)
        if self.fault != "slot kept":
            self.drop()

    def load(self, gpa: int, size: int) -> int | None:
        hpa = self.host(gpa)
        return None if hpa is None else int.from_bytes(self.read_host(hpa, size), "little")

    def store(self, gpa: int, data: bytes) -> bool:
        slot, hpa = self.slot(gpa), self.host(gpa)
        if slot is None or hpa is None or slot.readonly or not self.host_writable(slot, gpa):
            return False
        self.write_host(hpa, data)
        self.log(gpa)
        return True

    def log(self, gpa: int) -> None:
        slot = self.slot(gpa)
        if slot is not None and slot.log_dirty and self.fault != "not logged":
            slot.dirty.add((gpa - slot.gpa) // PAGE)

    def read_guest(self, gpa: int, size: int) -> bytes:
        return self.read_host(self.host(gpa) or 0, size)

    def write_guest(self, gpa: int, data: bytes) -> None:
        self.write_host(self.host(gpa) or 0, data)

    def get_dirty_log(self, slot: int, address_space: int = 0) -> bytes:
        if address_space:
            return bytes(1024)
        dirty = self._slots[slot].dirty
        bitmap = sum(1 << i for i in dirty).to_bytes(1024, "little")
        dirty.clear()
        self.drop()
        return bitmap

    def unmap_hva(self, hva: int, size: int) -> None:
        for page in range(hva // PAGE, (hva + size) // PAGE):
            frame = self._frames.pop(page, None)
            if frame is not None:
                self.write_host(HIGH + frame * PAGE, b"\xdb" * PAGE)
                self._free.append(frame)
        if self.fault != "frame kept":
            self.drop()

    def write_protect_hva(self, hva: int, size: int, writable: bool = False) -> None:
        for page in range(hva // PAGE, (hva + size) // PAGE):
            (self._protected.discard if writable else self._protected.add)(page)
        self.drop()

    def set_host_page_level(self, hva: int, size: int, level: int) -> None:
        pass

    def host_writable(self, slot: Slot, gpa: int) -> bool:
        return (slot.hva + gpa - slot.gpa) // PAGE not in self._protected

    def zap_all_fast(self) -> None:
        self.drop()

    def drop(self) -> None:
        for vcpu in self.vcpus:
            vcpu.drop()

    def arm_interleave(self, point: int, gpa: int, value: int, size: int, event: int = 0) -> None:
        """A fault is served in one piece: nothing comes between."""

    def set_manual_dirty_log_protect(self, manual: bool = True, initially_set: bool = False) -> None:
        """Its log is cleared when it is read."""

    def clear_dirty_log(self, slot: int, first_page: int, pages: int, bitmap: bytes, address_space: int = 0) -> None:
        """It is clear."""

    def set_shadow_pages(self, limit: int) -> None:
        """It needs no limit."""

    def reschedule(self, pages: int) -> None:
        """It syncs nothing."""

    def invalidate_hva(self, hva: int, size: int) -> None:
        """It drops all translations at each flush, and none before."""

    def age_hva(self, hva: int, size: int) -> bool:
        """It keeps no marks."""
        return False

    def unprotect_page(self, gfn: int) -> bool:
        """It shadows no table."""
        return False

    def shadow_page(self, hpa: int) -> None:
        """It has tables of its own."""

    def shadow_pages(self) -> list[Any]:
        """Nothing is write-protected."""
        return []

    def bugs(self) -> list[str]:
        return []

    def counters(self) -> dict[str, int]:
        return {}


class PagerVcpu:
    """A vCPU of the face."""

    def __init__(self, vm: Pager, index: int) -> None:
        self.vm, self.index = vm, index
        self.cr0 = self.cr3 = self.cr4 = self.efer = 0
        self.ac = False
        self.mmus: tuple[Any, ...] = ()
        self.prev_roots: tuple[Any, ...] = ()
        self.smm = False
        self.requests = 0
        self.exception: tuple[int, int, int] | None = None
        self._pdptes: tuple[int, ...] = (0, 0, 0, 0)
        self._stale = True
        self._tables = 1
        self._faults = 0

    def drop(self) -> None:
        self._stale = True

    def mmio_gpa(self, gva: int, access: int) -> None:
        """It remembers no MMIO."""

    def _mode(self) -> Paging:
        return paging(self.cr0, self.cr4, self.efer, self.vm.features)

    def set_sregs(self, cr0: int, cr3: int, cr4: int, efer: int) -> None:
        self._load(cr0, cr3, cr4, efer, pdptes=True)

    def _load(self, cr0: int, cr3: int, cr4: int, efer: int, *, pdptes: bool, keep: bool = False) -> bool:
        mode = paging(cr0, cr4, efer)
        if mode.levels == 3 and pdptes:
            loaded = [self.vm.load((cr3 & 0xFFFFFFE0) + 8 * i, 8) for i in range(4)]
            bad = any(p is None or (p & 1 and p & mode.pdpte_reserved) for p in loaded)
            if bad and self.vm.fault != "PDPTE unchecked":
                return False
            self._pdptes = tuple(p or 0 for p in loaded)
        self.cr0, self.cr3, self.cr4 = cr0, cr3, cr4
        self.efer = efer & ~EFER_LMA | (EFER_LMA if cr0 & hw.CR0_PG and efer & hw.EFER_LME else 0)
        if not keep:
            self.drop()
        return True

    def _takes(self, number: int, value: int) -> bool:
        """No #GP, but for a PDPTE."""
        return not is_refused(number, value, (self.cr0, self.cr3, self.cr4, self.efer & ~EFER_LMA), 40)

    def set_cr0(self, value: int) -> bool:
        return self._takes(0, value) and self._load(value, self.cr3, self.cr4, self.efer, pdptes=bool((value ^ self.cr0) & 0xE0000000))

    def set_cr3(self, value: int) -> bool:
        value &= ~(1 << 63)  # bit 63 would let it keep translations; it never does
        keep = self.vm.fault == "cr3 keeps tables"
        return self._takes(1, value) and self._load(self.cr0, value, self.cr4, self.efer, pdptes=True, keep=keep)

    def set_cr4(self, value: int) -> bool:
        return self._takes(2, value) and self._load(self.cr0, self.cr3, value, self.efer, pdptes=bool((value ^ self.cr4) & 0x1000B0))

    def set_efer(self, value: int) -> bool:
        return self._takes(3, value) and self._load(self.cr0, self.cr3, self.cr4, value, pdptes=False)

    def nested_vmrun(self, cr0: int, cr3: int, cr4: int, efer: int) -> bool:
        self._l1 = self.cr0, self.cr3, self.cr4, self.efer
        return self._load(cr0, cr3, cr4, efer, pdptes=True)

    def nested_vmexit(self) -> bool:
        self.cr4 = self._l1[2]  # L1's own, even if its PDPTEs are refused then and it shuts down
        return self._load(*self._l1, pdptes=True)

    def invlpg(self, gva: int) -> None:
        if self.vm.fault != "invlpg keeps tables":
            self.drop()

    # --- shadow tables

    def _frame(self, number: int) -> int:
        return HIGH + (self.index * TABLE_FRAMES + number) * PAGE

    def _root(self, level: int) -> int:
        if level == 3 and self.vm.fault != "root too high":
            return (self.index + 1) * PAGE
        return self._frame(0)

    def enter(self) -> Entry:
        if self.cr0 & hw.CR0_PG and (self.vm.fault == "triple fault") != (self.vm.host(self.cr3 & 0xFFFFFFF000) is None):
            raise TripleFault("the root is not in memory")
        level, flush = max(3, self._mode().levels), self._stale
        if flush:
            for number in range(self._tables):
                self.vm.write_host(self._frame(number), bytes(PAGE))
            self.vm.write_host(self._root(level), bytes(PAGE))
            self._tables, self._stale = 1, False
        return Entry(self._root(level), level, flush and self.vm.fault != "no flush")

    def _map(self, gva: int, leaf: int) -> None:
        levels = max(3, self._mode().levels)
        table = self._root(levels)
        for level in range(levels, 1, -1):
            at = table + (gva >> 12 + 9 * (level - 1) & (3 if level == levels == 3 else 511)) * 8
            entry = int.from_bytes(self.vm.read_host(at, 8), "little")
            if not entry:
                entry = self._frame(self._tables) | (1 if level == levels == 3 else 0x27)
                self._tables += 1
                self.vm.write_host(at, entry.to_bytes(8, "little"))
            table = entry & hw.ADDRESS
        self.vm.write_host(table + (gva >> 12 & 511) * 8, leaf.to_bytes(8, "little"))

    def _translate(self, gva: int, access: int) -> Translation | None:
        """Walk the guest's tables; None: `exception` is set."""
        vm, fault = self.vm, self.vm.fault

        def write(gpa: int, size: int, value: int) -> None:
            vm.store(gpa, (value | (0x40 if fault == "D on reads" else 0)).to_bytes(size, "little"))

        mark: Callable[[int, int, int], None] | None = None if fault == "no A" else write
        result = walk(self._mode(), vm.load, self.cr3, gva, access, self.ac, write=mark, pdptes=self._pdptes)
        if isinstance(result, Translation):
            return result
        if result & 9 == 1:  # a #PF drops the translation of its address
            self.drop()
        self.exception = 14, result & ~8 if fault == "no RSVD" else result, gva & ~0xFFF if fault == "wrong address" else gva
        return None

    def page_fault(self, gva: int, error_code: int) -> Outcome:
        access, vm, fault = error_code & 0x16, self.vm, self.vm.fault
        page = self._translate(gva, access)
        self._faults += 1
        if fault == "needless fault" and page is not None and self._faults % 50 == 0:
            self.exception = 14, error_code, gva
            return Outcome.INJECT
        if page is None:
            return Outcome.INJECT
        gpa = page.address(gva) & -PAGE
        slot, hpa = vm.slot(gpa), vm.host(gpa)
        if slot is None or hpa is None or (access & WRITE and slot.readonly and fault != "read-only slot written"):
            return Outcome.EMULATE
        if access & WRITE and not vm.host_writable(slot, gpa):
            raise HostFault("the host may not write the page")
        if fault != "no progress" or gva & 0x7000 != 0x7000:
            self._map(gva, (hpa ^ PAGE if fault == "wrong frame" else hpa) | self._leaf(page, access, slot, gpa))
        return Outcome.FIXED

    def _leaf(self, page: Translation, access: int, slot: Slot, gpa: int) -> int:
        """The bits of a leaf: what the guest allows, W only for a dirty page and, while logging, for a write."""
        fault, rights = self.vm.fault, page.rights
        writable = rights & WRITE and (rights & hw.DIRTY or fault == "writable while clean")
        writable = writable and (not slot.readonly or fault == "read-only slot written") and (access & WRITE or not slot.log_dirty)
        writable = writable and self.vm.host_writable(slot, gpa)
        user, execute = rights & USER, rights & hw.EXEC
        if access == WRITE and not rights & WRITE:  # CR0.WP=0: writable, but then not for users, nor under SMEP to be fetched
            writable, user, execute = 1, 0, execute and not self.cr4 & hw.CR4_SMEP
        if fault == "writable to all":
            writable = 1
        if writable:
            self.vm.log(gpa)
        user = USER if fault == "user to all" else user
        nx = 0 if execute or fault == "executable to all" else hw.NX
        return 0x21 | (WRITE | 0x40 if writable else 0) | user | nx

    # --- the emulator's calls

    def gva_to_gpa(self, gva: int, access: int) -> int | None:
        page = self._translate(gva, access)
        if page is None:
            return None
        return page.address(gva) ^ (PAGE if self.vm.fault == "emulator off by one page" else 0)

    def begin_emulation(self, rip: int, address: int, user: bool) -> None:
        """Whatever it is, it is emulated."""

    def retry_instruction(self, writes_tables: bool) -> bool:
        return False

    def inject(self) -> None:
        pass

    def read_emulated(self, gpa: int, size: int) -> bytes | None:
        return self.vm.read_guest(gpa, size) if self.vm.slot(gpa) else None

    def write_emulated(self, gpa: int, data: bytes) -> bool:
        return self.vm.store(gpa, data)
