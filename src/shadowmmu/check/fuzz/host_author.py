# SPDX-License-Identifier: GPL-2.0-only
"""Invents what the host does in the middle of an episode: memslots, pages that move, rights taken, dirty logs."""

from shadowmmu.check.fuzz.operations import (
    MOVED,
    SLOTS,
    TABLES,
    Kind,
)
from shadowmmu.check.fuzz.table_writer import TableWriter
from shadowmmu.hardware.walk import (
    USER,
    WRITE,
)


class HostAuthor(TableWriter):
    """Writes what user space and the host do."""

    def slot(self, vcpu: int) -> None:
        """Delete and make again, move, or change the flags of a slot; tables are not away or read-only for long."""
        random = self.random
        slot = random.choice((0, 1, 1, 2))
        first, pages = SLOTS[slot]
        flags = random.choice((0, 0, 0, 1, 1, 2, 2, 2))
        present = self.guest.slots.slots.get(slot)
        at = MOVED if slot == 1 and random.random() < 0.3 else first
        if present is not None and ((flags ^ present[3]) & 1 or random.random() < 0.4):
            self._add(Kind.SLOT, vcpu, slot, present[0], 0, 0)
            self._touch(present[0], present[1], random.randrange(4))
            if slot and random.random() < 0.3:
                return
        self._add(Kind.SLOT, vcpu, slot, at, pages, flags)
        self._touch(present[0] if present else at, pages, random.randrange(4))
        if flags & 1:
            self._touch(at, pages, 4, WRITE)
        if slot == 0 and flags & 1:
            self._add(Kind.SLOT, vcpu, slot, first, 0, 0)
            self._add(Kind.SLOT, vcpu, slot, first, pages, 0)

    def swap(self, vcpu: int) -> None:
        """The host moves a page; the next accesses must find it."""
        page, pages = self._used_page(vcpu), self.random.choice((1, 1, 1, 4))
        self._add(Kind.SWAP, vcpu, page, pages)
        self._touch(page, pages, 2)

    def protect(self, vcpu: int) -> None:
        """The host takes its right to write a page away, and gives it back a little later."""
        page = self._used_page(vcpu)
        if page <= TABLES:
            return
        self._add(Kind.PROTECT, vcpu, page, 0)
        self._touch(page, 1, 2)
        self._add(Kind.PROTECT, vcpu, page, 1)
        self._touch(page, 1, 1, WRITE)

    def dirty(self, vcpu: int) -> None:
        """Read a dirty log, write, and read it again; turn logging on where it is off."""
        slot = self.random.choice(tuple(SLOTS))
        present = self.guest.slots.slots.get(slot)
        if present is None or present[3] & 1:
            return
        if not present[3] & 2:
            self._add(Kind.SLOT, vcpu, slot, present[0], present[1], 2)
        for _ in range(2):
            self._add(Kind.DIRTY, vcpu, slot)
            self._touch(present[0], present[1], 3, self.random.choice((WRITE, USER | WRITE)))
            self._touch(present[0], present[1], 1)
        self._add(Kind.DIRTY, vcpu, slot)
        if self.random.random() < 0.5:
            self._add(Kind.SLOT, vcpu, slot, present[0], present[1], 0)

    def zap_all(self, vcpu: int) -> None:
        self._add(Kind.ZAP_ALL, vcpu)
