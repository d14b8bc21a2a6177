# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What backs guest memory during an episode: the memslots and the host's pages, as the fuzzer set them."""

from random import Random
from typing import Any

import cython
from cython.cimports.libc.string import memset

from shadowmmu.check.fuzz.operations import ALIAS, ALIASED, HOLDS_LARGE, HOST_PAGES, PAGE, SLOTS
from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.oracle import Oracle
from shadowmmu.hardware.host_memory import HostMemory, Violation

Slot = tuple[int, int, int, int]
"""First page, pages, host page, flags."""


def host_pages(seed: int) -> dict[int, int]:
    """The first host page of each slot. Now and then those of the last are aligned otherwise: then no large page of the host fits there."""
    apart = Random(f"host addresses {seed}").choice((0, 0, 0, 0, 0, 0, 8, 256))
    return HOST_PAGES | {HOLDS_LARGE: HOST_PAGES[HOLDS_LARGE] - apart}


class Slots(GuestMemory):
    """The memslots as the fuzzer set them: the oracle's view of what backs guest memory.

    `behind` has the first host page of each slot, `frames` the frame of each host page, as far as it is known.
    """

    def __init__(self, vm: Any, memory: HostMemory, behind: dict[int, int], spaces: tuple[int, ...] = (0,)) -> None:
        self.vm, self.memory, self.behind, self.spaces = vm, memory, behind, spaces
        self.slots: dict[int, Slot] = {}
        self.protected: set[int] = set()  # host pages that the host may not write
        self.absent: set[int] = set()  # host pages that were taken away and are not written yet
        self.aliases = False  # two slots have had the same host pages
        self.zeroes = -1  # the frame of zeroes that absent pages share
        self.forget()

    def set(self, slot: int, first: int, pages: int, flags: int) -> None:
        """Make, change or (no pages) delete a slot, in all address spaces of the VM too."""
        host, rights = self.host_of(slot, first), {"readonly": bool(flags & 1), "log_dirty": bool(flags & 2)}
        for space in self.spaces if pages or slot in self.slots else ():
            self.vm.set_memslot(slot, first * PAGE, pages * PAGE, hva=host * PAGE, address_space=space, **rights)
        self.slots.pop(slot, None)
        self.aliases |= slot == ALIAS and pages > 0
        if pages:
            self.slots[slot] = first, pages, host, flags
        self.count = 0
        for begin, size, behind, how in self.slots.values():
            place = cython.address(self.places[self.count])
            place.first, place.pages, place.host, place.readonly = begin, size, behind, how & 1
            self.count += 1

    def host_of(self, slot: int, first: int) -> int:
        """The host page of the first of a slot that begins there: it was moved, or is without its first pages."""
        return self.behind[slot] + (first - SLOTS[slot][0] if slot == HOLDS_LARGE else 0)

    def slot_of(self, gfn: int) -> Slot | None:
        """The slot that `gfn` lies in."""
        for slot in self.slots.values():
            if slot[0] <= gfn < slot[0] + slot[1]:
                return slot
        return None

    def host_page(self, gfn: int) -> int | None:
        """The host page (of user memory) that a slot maps to `gfn`."""
        slot = self.slot_of(gfn)
        return None if slot is None else slot[2] + gfn - slot[0]

    def forget(self) -> None:
        """The host has changed its own mapping."""
        memset(self.frames, 0, cython.sizeof(self.frames))

    def find_zeroes(self, gpa: int) -> None:
        """Whether absent pages share one frame of zeroes, as a real host's do; tried on two pages that end as they were."""
        host = self.host_page(gpa >> 12) or 0
        self.vm.unmap_hva(host * PAGE, 2 * PAGE)
        self.vm.read_guest(gpa, 2 * PAGE)
        first, second = self.vm.host_page(host * PAGE), self.vm.host_page((host + 1) * PAGE)
        self.zeroes = first if first == second else -1
        self.vm.write_guest(gpa, bytes(2 * PAGE))
        self.forget()

    def arrivals(self) -> bool:
        """Whether an absent page has been given a frame since the last call."""
        arrived = {page for page in self.absent if self.vm.host_page(page * PAGE) not in (None, self.zeroes)}
        self.absent -= arrived
        return bool(arrived)

    def place_of(self, gfn: int) -> object:
        """The slot that the page lies in, or NULL."""
        for number in range(self.count):
            place = cython.address(self.places[number])
            if gfn - place.first < place.pages:
                return place
        return cython.NULL

    def may_store(self, gpa: int) -> bool:
        """Neither the slot nor the host forbids a store."""
        place = self.place_of(gpa >> 12)
        return place != cython.NULL and not place.readonly and place.host + (gpa >> 12) - place.first not in self.protected

    def frame_of(self, host: int, gpa: int) -> int:
        """The frame of a host page; one that was not touched since the host took it away gets one. Zeroes may give way to another."""
        known = self.frames[host]
        if not known:
            hpa = self.vm.host_page(host * PAGE)
            if hpa is None:
                self.vm.read_guest(gpa & -PAGE, 1)
                hpa = self.vm.host_page(host * PAGE)
            known = hpa
            self.frames[host] = 0 if hpa == self.zeroes else known
        return known

    def host(self, gpa: int) -> int | None:
        found = self.frame(gpa)
        return None if found == NOWHERE else found

    def frame(self, gpa: int) -> int:
        place = self.place_of(gpa >> 12)
        if place == cython.NULL:
            return NOWHERE
        return self.frame_of(place.host + (gpa >> 12) - place.first, gpa) | gpa & 0xFFF

    def is_aliased(self, gpa: int) -> bool:
        place = self.place_of(gpa >> 12) if self.aliases else cython.NULL
        return place != cython.NULL and 0 <= place.host + (gpa >> 12) - place.first - self.behind[ALIAS] < ALIASED[1]

    def backs_aliased(self, frame: int) -> bool:
        """The frame is of a host page that two slots can map; one that is not known is asked for, and not fetched."""
        first = self.behind[ALIAS]
        for host in range(first, first + ALIASED[1]):
            known = self.frames[host]
            if not known:
                found = self.vm.host_page(host << 12)
                known = NOWHERE if found is None else found
            if known != NOWHERE and known >> 12 == frame:
                return True
        return False

    def read(self, hpa: int, size: int) -> int:
        return self.memory.read(hpa, size)

    def value(self, hpa: int, width: int) -> int:
        if width == 8:
            return cython.cast(p_u64, self.memory.place(hpa, 8))[0]
        return cython.cast(p_u32, self.memory.place(hpa, 4))[0]

    def peek(self, gpa: int, size: int) -> int | None:
        """An aligned value in guest memory, without touching a page that the host has taken away: that is zeroes."""
        place = self.place_of(gpa >> 12)
        if place == cython.NULL:
            return None
        host = place.host + (gpa >> 12) - place.first
        hpa = self.frames[host] or self.vm.host_page(host * PAGE)
        return 0 if hpa is None else self.memory.read(hpa | gpa & 0xFFF, size)

    def with_frames(self, frames: set[int], first: int, pages: int) -> list[int]:
        """Those of the guest pages whose frames are among these."""
        some, found = 0, list[int]()
        for frame in frames:
            some |= cython.cast(u64, 1) << (frame & 63)  # that there is one with these low bits
        for gfn in range(first, first + pages if some else first):
            number = self.frame(gfn << 12) >> 12
            if some >> (number & 63) & 1 and number in frames:
                found.append(gfn)
        return found

    def writable(self, gpa: int) -> bool:
        """A store through a translation may land here; not on the shared zeroes."""
        return self.stores(gpa)

    def stores(self, gpa: int) -> bool:
        return self.may_store(gpa) and self.frame(gpa) & ~0xFFF != self.zeroes


class Untold:
    """For the audit: entries of guest tables that may be older in the shadow, since the MMU is not told of every store to them."""

    def __init__(self, slots: Slots, oracle: Oracle) -> None:
        self.slots, self.oracle = slots, oracle

    def __contains__(self, gpa: object) -> bool:
        if not isinstance(gpa, int):
            return False
        unguarded, hpa = self.oracle.unguarded, self.slots.host(gpa)
        if hpa is not None and hpa >> 12 in self.oracle.aliased:  # a store by the other gfn is tracked by that one alone
            return True
        return gpa >> 12 in unguarded.gfns or hpa in unguarded.outside[4] or hpa in unguarded.outside[8]


class Aliased:
    """For the oracle: frames that two memslots map now and then, so that a store there is known by its gfn alone."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def __contains__(self, frame: object) -> bool:
        return self.slots.backs_aliased(frame)


class DirectMap:
    """What may be seen of an L1 that stores through the host's nested tables: memory is where the memslots have it."""

    def __init__(self, slots: Slots, oracle: Oracle) -> None:
        self.slots, self.oracle = slots, oracle
        self.gpa = 0

    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None:
        if self.slots.host(gva) != hpa or not self.slots.writable(gva):
            raise Violation(f"L1's store to gpa {gva:#x} went to host {hpa:#x}, the memslots have it at {self.slots.host(gva) or 0:#x}")

    def stored(self, hpa: int, size: int) -> None:
        self.oracle.stored(hpa, size)

    def emulated_store(self, gpa: int, size: int) -> None:
        hpa = self.slots.host(gpa)
        if hpa is not None:
            self.oracle.stored(hpa, size)

    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None:
        """No tables of L1's are walked."""
        self.gpa = gva

    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[Any, ...] | None) -> None:
        if exception is not None:
            raise Violation(f"L1 gets {exception} for a physical address")
        if outcome == "EMULATE" and self.slots.host(self.gpa) is None:
            self.oracle.unguarded.mmio.add(self.gpa >> 12)
