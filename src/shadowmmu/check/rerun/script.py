# SPDX-License-Identifier: GPL-2.0-only
"""The host script of a captured guest: what its VMM does at each call, as the marks that a capture has for it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shadowmmu.captures.capture import Guest, Slot
from shadowmmu.captures.markers import Mark
from shadowmmu.errors import BadInput

END = 0xFFFF
"""The call with which a guest ends."""
STATS = "stats"
"""A command that only looks: the counters under a name."""
_SLOT_COMMANDS = frozenset(("delslot", "addslot", "readd", "flags", "move"))


class Script:
    """One run of a guest's script. It remembers each memslot as it was last, as its commands change one thing of it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.slots = {slot.id: slot for slot in guest.memslots}
        self._calls = list(guest.host_script)

    def set_up(self) -> Iterator[Mark]:
        """The memslots the guest starts with."""
        for slot in self.guest.memslots:
            yield _slot(slot)

    def call(self) -> list[str]:
        """The commands of the guest's next call. The VMM takes them in order, whatever number the guest tells: an L2 may have died
        before it called."""
        return self._calls.pop(0) if self._calls else []

    @property
    def is_over(self) -> bool:
        """The VMM runs the guest as often as it has parts of the script, even behind the guest's end."""
        return not self._calls

    def mark(self, command: str) -> Mark:
        """What a command other than STATS does. Numbers are hexadecimal, but for slots, lengths and page limits; `state` says itself."""
        word, *arguments = command.split()
        try:
            if word in _SLOT_COMMANDS:
                return self._change_slot(word, int(arguments[0]), *(int(text, 16) for text in arguments[1:]))
            if word == "madvise":
                return _mark("madvise_dontneed", gpa=int(arguments[0], 16), size=int(arguments[1], 16))
            if word == "mprotect":
                return _mark("mprotect", gpa=int(arguments[0], 16), size=int(arguments[1], 16), w=int(arguments[2]))
            if word == "dirtylog":
                return _mark("get_dirty_log", slot=int(arguments[0]))
            if word == "manual":
                return _mark("manual_protect", flags=int(arguments[0], 16))
            if word == "clearlog":
                return _mark("clear_dirty_log", slot=int(arguments[0]), first=int(arguments[1], 16), count=int(arguments[2], 16))
            if word == "nrpages":
                return Mark("H", "set_nr_mmu_pages", {}, int(arguments[0]))
            if word == "poke":
                return _mark("poke", gpa=int(arguments[0], 16), len=int(arguments[1]), val=int(arguments[2], 16))
            if word == "slot":
                return self._new_slot(int(arguments[0]), [int(text, 16) for text in arguments[1:4]], arguments[4])
            if word == "on":
                return _mark("on", vcpu=int(arguments[0]))
            if word == "state":
                return _mark("set_sregs", **{name: int(text, 0) for name, text in (pair.split("=") for pair in arguments)})
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"guest {self.guest.name}: its host script has {command!r}, which makes no sense ({error}); mend it") from None
        raise BadInput(f"guest {self.guest.name}: its host script has {command!r}, which is not known; mend it")

    def _new_slot(self, number: int, values: list[int], backing: str) -> Mark:
        flags, gpa, size = values
        self.slots[number] = Slot(number, gpa, size, backing, flags)
        return _slot(self.slots[number])

    def _change_slot(self, word: str, number: int, value: int = 0) -> Mark:
        slot = self.slots[number]
        if word == "delslot":
            return _slot(msgspec.structs.replace(slot, size=0))
        if word == "move":
            slot = msgspec.structs.replace(slot, gpa=value)
        elif word != "addslot":
            slot = msgspec.structs.replace(slot, flags=value)
        self.slots[number] = slot
        return _slot(slot)


def _slot(slot: Slot) -> Mark:
    return _mark("slot", id=slot.id, flags=slot.flags, gpa=slot.gpa, size=slot.size)


def _mark(action: str, **fields: int) -> Mark:
    return Mark("H", action, fields)
