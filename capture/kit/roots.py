# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios in which root designs part: vCPUs that share a VM and sleep while it changes, and addresses beyond a guest's tables."""

from __future__ import annotations

from collections.abc import Callable

from kit.bits import ALL, CR4_PSE, PS
from kit.guest import Guest, Paged
from kit.layout import BIG_MEMORY, DATA_MEMORY, HIGH, L2_DATA, PAGE, frame, page
from kit.programme import Programme
from kit.svm import After, Hypervisor, Vmcb

SECOND_CODE, SECOND_STACK = 0x60000, 0x6000
SECOND_GIGABYTE = HIGH + (8 << 20)
L2_BEYOND = 0x0C00_0000
"""Where a paged L2 maps guest-physical memory beyond 4 GiB."""
PSE36_4_GIB = 1 << 13
"""In a 4 MiB entry: bit 32 of the address."""


class Two:
    """A guest with two vCPUs that take turns. `first` and `second` are their programmes, which share the list of operations."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.first: Programme = guest
        self.second = Programme(guest.memory, guest.bits, SECOND_CODE)
        self.second.ops = guest.ops
        guest.other_vcpus = [guest.entry_state | {"rip": SECOND_CODE, "rsp": SECOND_STACK}]

    def turn(self, now: Programme, *commands: str, note: str = "") -> Programme:
        """It calls the host, which lets the other one run; that one."""
        other = self.second if now is self.first else self.first
        self.guest.host(*commands, f"on {int(other is self.second)}", note=note, by=now)
        return other


def _at(g: Guest, number: int) -> int:
    """The address of a data page."""
    return page(number) if isinstance(g, Paged) else frame(number)


def _touch(now: Programme, g: Guest) -> None:
    now.read(_at(g, 0))
    now.write(_at(g, 1), 0x11)
    if isinstance(g, Paged):
        now.read(SECOND_GIGABYTE, "another PDPTE")


def _map(g: Guest) -> None:
    if isinstance(g, Paged):
        g.tables.map(SECOND_GIGABYTE, frame(9))


def asleep(g: Guest, deletions: int) -> None:
    """Both vCPUs have a root; one sleeps while everything is zapped"""
    two = Two(g)
    _map(g)
    _touch(two.first, g)
    second = two.turn(two.first)
    _touch(second, g)
    for _ in range(deletions):
        g.host("delslot 2", "readd 2 0", note="all is zapped", by=second)
        _touch(second, g)
    first = two.turn(second, "stats slept")
    _touch(first, g)
    second = two.turn(first)
    _touch(second, g)
    two.turn(second)


def asleep_once(g: Guest) -> None:
    """a vCPU sleeps while everything is zapped: its root is obsolete"""
    asleep(g, 1)


def asleep_twice(g: Guest) -> None:
    """a vCPU sleeps while everything is zapped twice: the generation is the one of its root again"""
    asleep(g, 2)


def asleep_thrice(g: Guest) -> None:
    """a vCPU sleeps while everything is zapped three times"""
    asleep(g, 3)


def shared(g: Paged) -> None:
    """two vCPUs on the same tables: one changes entries of every level, below both roots"""
    two = Two(g)
    _map(g)
    _touch(two.first, g)
    second = two.turn(two.first)
    _touch(second, g)
    second.edit_flush(g.tables, page(2), 1, frame(20) | ALL, "a leaf, its table goes unsync")
    first = two.turn(second)
    first.read(page(2), "through the other's unsync table")
    first.cr3(g.tables.root, "a flush: all is synced")
    first.read(page(2))
    second = two.turn(first)
    second.edit_flush(g.tables, SECOND_GIGABYTE, 2, 0, "a directory's entry")
    second.read(SECOND_GIGABYTE, "gone")
    first = two.turn(second, "nrpages 40", note="few shadow pages")
    for number in range(8):
        first.read(page(number))
    second = two.turn(first, "flags 3 1", "dirtylog 3")
    _touch(second, g)
    two.turn(second, "flags 3 0")


def elsewhere(g: Paged) -> None:
    """a vCPU on tables of its own writes to one of them until it is shadowed no longer: nothing below the other one's root goes"""
    two = Two(g)
    own = g.new_root(low=g.tables)
    _map(g)
    own.map(SECOND_GIGABYTE, frame(9))
    _touch(two.first, g)
    second = two.turn(two.first)
    second.cr3(own.root)
    _touch(second, g)
    table = own.table(SECOND_GIGABYTE, 2)
    for number in range(4):
        second.write(table + (40 + number) * g.form.entry_size, 0, "to a table of level 2")
    first = two.turn(second)
    _touch(first, g)
    second = two.turn(first)
    _touch(second, g)
    two.turn(second)


def beyond(g: Hypervisor) -> None:
    """L2 reads beyond 4 GiB, where the nested tables of a 32-bit L1 do not reach; their low bits would find a page"""
    own, t = g.l2_tables(), g.nested
    g.memory.write_word(g.vmcb + Vmcb.CR4, CR4_PSE, 8)
    t.map_range(own.root, own.root, 8)
    t.map_range(BIG_MEMORY, DATA_MEMORY, 4)
    own.set(L2_BEYOND, 2, BIG_MEMORY | ALL | PS | PSE36_4_GIB)
    g.l2.read(L2_DATA, "below 4 GiB")
    g.l2.read(L2_BEYOND)
    g.vmrun(After.NPF)
    g.l2.write(L2_BEYOND + PAGE, 1)
    g.vmrun(After.NPF)


TWO: dict[str, Callable[[Paged], None]] = {
    "asleep1": asleep_once, "asleep2": asleep_twice, "asleep3": asleep_thrice, "shared": shared,
    "elsewhere": elsewhere,
}  # fmt: skip
UNPAGED_TWO: dict[str, Callable[[Guest], None]] = {"asleep1": asleep_once, "asleep2": asleep_twice}
