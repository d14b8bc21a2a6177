# SPDX-License-Identifier: GPL-2.0-only
"""A guest's host, as its TOML file tells of it: which memory is where, and what the host does while the guest runs.

The guest writes a number to `HOST_PORT`, and the host does the steps of that number, as user space and the kernel beside a VM would:
change memslots, move pages, read dirty logs, zap, store as a device does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from shadowmmu.border.limits import STEPS
from shadowmmu.engine.face.types import EngineError
from shadowmmu.engine.face.vm import Vm

PAGE = 4096
_LARGE = 512
"""Small pages in one of 2 MiB."""
_EVENTS = {"store": 0, "obsolete": 1, "move": 2}
_MARKS = 0x60
"""A and D, which a walk may set in what was stored."""
MAX_MEMORY_MIB = 1024
MAX_SLOTS = 64

Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Page = Annotated[int, msgspec.Meta(ge=0, le=(1 << 40) - 1)]
Address = Annotated[int, msgspec.Meta(ge=0, le=(1 << 52) - 1)]
Do = Literal[
    "memslot", "move", "protect", "zap-all", "dirty-log", "store", "limit-shadow-pages", "reschedule", "invalidate", "age", "unprotect",
    "race", "race-is-over",
]  # fmt: skip


class HostMemslot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pages of guest memory, and the pages of host memory behind them."""

    slot: Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOTS - 1)]
    page: Page
    pages: Page
    """0: it is deleted."""
    host_page: Page = 0
    readonly: bool = False
    log_dirty: bool = False

    def set(self, vm: Vm) -> None:
        vm.set_memslot(
            self.slot, self.page * PAGE, self.pages * PAGE, self.host_page * PAGE, readonly=self.readonly, log_dirty=self.log_dirty
        )


class HostStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the host does when the guest writes `at` to the port; of one number in the order of the file."""

    at: Number
    do: Do
    memslot: HostMemslot | None = None
    """To be made, changed, moved or deleted."""
    slot: Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOTS - 1)] = 0
    """Whose dirty log is read."""
    page: Page = 0
    """Of the guest's memory."""
    written: Annotated[tuple[Page, ...], msgspec.Meta(max_length=STEPS)] = ()
    """Pages of the guest's memory that the dirty log must name."""
    writable: bool = False
    """Whether the host may write the page, of which `protect` tells."""
    count: Annotated[int, msgspec.Meta(ge=0, le=(1 << 16) - 1)] = 0
    """Shadow pages that there may be; pages that are synced until another task wants the CPU."""
    address: Address = 0
    """Guest physical, of a store that the MMU is not told of."""
    point: Literal[1, 2] = 1
    """Of a `race`: where in the next fault the store at `address` comes: before the MMU's lock is taken, or before a shadow page is
    looked up."""
    event: Literal["store", "obsolete", "move"] = "store"
    """What comes there: the store, or all shadow pages become obsolete, or the host moves the page at `address`."""
    size: Literal[1, 2, 4, 8] = 8
    value: Annotated[int, msgspec.Meta(ge=0)] | str = 0
    """What is stored; one of 64 bits, whose upper half TOML has no number for, as text: "0x8000000000000000"."""


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The host of one guest."""

    memory_mib: Annotated[int, msgspec.Meta(ge=1, le=MAX_MEMORY_MIB)]
    """Host memory behind all memslots."""
    memslot: Annotated[tuple[HostMemslot, ...], msgspec.Meta(min_length=1, max_length=MAX_SLOTS)]
    """The guest's memory; `memory_mib` of the guest counts no more."""
    step: Annotated[tuple[HostStep, ...], msgspec.Meta(max_length=STEPS)] = ()
    shadow_pages: Annotated[int, msgspec.Meta(ge=0, le=1 << 16)] = 0
    """Limit of shadow pages; 0: the kernel's default."""
    nx_huge_pages: bool = False
    eager_page_split: bool = False
    pages_1g: bool = True
    """The guest's CPU has pages of 1 GiB."""
    manual_log: Literal["", "clear", "set"] = ""
    """Reading a dirty log does not clear it (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2); a new log begins clear, or with all pages set."""
    large: Annotated[tuple[Page, ...], msgspec.Meta(max_length=STEPS)] = ()
    """Host pages at which one of 2 MiB begins."""

    def holds(self, gpa: int, end: int) -> bool:
        """All of it lies in one memslot."""
        return any(slot.page * PAGE <= gpa and end <= (slot.page + slot.pages) * PAGE for slot in self.memslot)

    def set_up(self, vm: Vm) -> None:
        """The memory of a new VM. Raises ValueError for what cannot be."""
        if self.manual_log:
            vm.set_manual_dirty_log_protect(initially_set=self.manual_log == "set")
        try:
            for page in self.large:
                vm.set_host_page_level(page * PAGE, _LARGE * PAGE, 2)
            for slot in self.memslot:
                slot.set(vm)
        except EngineError as error:
            raise ValueError(str(error)) from None


class HostAtWork:
    """Does the steps. `changed` is called after each; then a CPU that runs is to come back and see.

    failure  what the host found wrong; empty if nothing
    untold   guest-physical addresses of words that were stored to unseen by the MMU, in fours
    """

    def __init__(self, host: Host, vm: Vm, changed: Callable[[], None]) -> None:
        self._host, self._vm, self._changed = host, vm, changed
        self.failure = ""
        self.untold = set[int]()
        self._race: HostStep | None = None
        self._behind = {slot.slot: slot for slot in host.memslot}
        self._steps: defaultdict[int, list[HostStep]] = defaultdict(list)
        for step in host.step:
            self._steps[step.at].append(step)

    def perform(self, number: int) -> None:
        for step in self._steps.get(number, ()):
            try:
                self._do(step)
            except (EngineError, ValueError) as error:
                self._fail(f"step {number}, {step.do}: {error}")
        self._changed()

    def _fail(self, what: str) -> None:
        self.failure = self.failure or f"the host: {what}"

    def _do(self, step: HostStep) -> None:
        vm, hva = self._vm, (self._host_page(step.page) or 0) * PAGE
        if step.do == "memslot":
            self._memslot(step.memslot)
        elif step.do == "dirty-log":
            self._read_log(step)
        elif step.do == "store":
            self._store(step)
        elif step.do == "race":
            vm.arm_interleave(step.point, step.address, _value(step), step.size, _EVENTS[step.event])
            self._race = step
        elif step.do == "race-is-over":
            self._end_race()
        elif step.do == "zap-all":
            vm.zap_all_fast()
        elif step.do == "limit-shadow-pages":
            vm.set_shadow_pages(step.count)
        elif step.do == "reschedule":
            vm.reschedule(step.count)
        elif step.do == "unprotect":
            vm.unprotect_page(step.page)
        elif self._host_page(step.page) is None:
            raise ValueError(f"page {step.page:#x} is in no memslot")
        elif step.do == "move":
            self._move(step.page, hva)
        elif step.do == "protect":
            vm.write_protect_hva(hva, PAGE, writable=step.writable)
        elif step.do == "invalidate":
            vm.invalidate_hva(hva, PAGE)
        else:
            vm.age_hva(hva, PAGE)

    def _host_page(self, page: int) -> int | None:
        for slot in self._behind.values():
            if slot.page <= page < slot.page + slot.pages:
                return slot.host_page + page - slot.page
        return None

    def _memslot(self, slot: HostMemslot | None) -> None:
        if slot is None:
            raise ValueError("it names no memslot")
        slot.set(self._vm)
        self._behind.pop(slot.slot, None)
        if slot.pages:
            self._behind[slot.slot] = slot

    def _move(self, page: int, hva: int) -> None:
        """It comes back elsewhere with what was in it; one of zeroes when it is touched."""
        data = self._vm.read_guest(page * PAGE, PAGE)
        self._vm.set_host_page_level(hva & -_LARGE * PAGE, _LARGE * PAGE, 1)
        self._vm.unmap_hva(hva, PAGE)
        if any(data):
            self._vm.write_guest(page * PAGE, data)

    def _end_race(self) -> None:
        """A store that no fault was there for comes late."""
        self._vm.arm_interleave(0, 0, 0, 1)
        race, self._race = self._race, None
        if race is None or race.event != "store":
            return
        there = int.from_bytes(self._vm.read_guest(race.address, race.size), "little")
        if (there ^ _value(race)) & ~_MARKS:
            self._store(race)

    def _read_log(self, step: HostStep) -> None:
        slot = self._behind.get(step.slot)
        if slot is None:
            raise ValueError(f"there is no memslot {step.slot}")
        log = self._vm.get_dirty_log(step.slot)
        bits = int.from_bytes(log, "little")
        missing = [page for page in step.written if not (slot.page <= page < slot.page + slot.pages and bits >> page - slot.page & 1)]
        if missing:
            self._fail(f"step {step.at}: the dirty log of memslot {step.slot} misses page {missing[0]:#x}, which was written")
        if self._host.manual_log:
            self._vm.clear_dirty_log(step.slot, 0, slot.pages, log)

    def _store(self, step: HostStep) -> None:
        self._vm.write_guest(step.address, _value(step).to_bytes(step.size, "little"))
        self.untold.update(range(step.address & -8, step.address + step.size, 4))


def _value(step: HostStep) -> int:
    value = step.value if isinstance(step.value, int) else int(step.value, 0)
    if not 0 <= value < 1 << 8 * step.size:
        raise ValueError(f"{value:#x} has more than {step.size} bytes")
    return value
