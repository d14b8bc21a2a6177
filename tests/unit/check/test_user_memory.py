# SPDX-License-Identifier: GPL-2.0-only
"""Where a capture's memory lies in a replay: what slots share, and which host pages are behind it."""

from __future__ import annotations

import msgspec
import pytest

from shadowmmu.captures.capture import Capture, Slot
from shadowmmu.captures.find import find
from shadowmmu.captures.markers import parse
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.replayed.host import ReplayedHost
from shadowmmu.check.replayed.user_memory import UserMemory
from shadowmmu.trace.events import Marker

MIB = 1 << 20


def capture(*slots: tuple[int, int, int, int | None, str], frames: list[tuple[int, int, int, int]] | None = None) -> Capture:
    """Of slots (id, gpa, size, the VMM's address, backing), and no more."""
    base = find("zero/p32_zero")[0].load()
    texts = [f"H slot id={i} flags=0 gpa={gpa:x} size={size:x}" + (f" hva={hva:x}" if hva else "") for i, gpa, size, hva, _ in slots]
    memslots = [Slot(i, gpa, size, backing) for i, gpa, size, _, backing in slots]
    guest = msgspec.structs.replace(base.guest, memslots=memslots, host_script=[])
    return msgspec.structs.replace(base, guest=guest, events=[Marker(text=text) for text in texts], frames=frames or [])


def test_slots_share_what_the_vmm_gave_both() -> None:
    """A BIOS below 1 MiB and at 4 GiB; then a slot that lies in the middle of both and reaches beyond."""
    told = capture(
        (0, 0xE0000, 0x20000, 0x7F0000020000, "slot:1+20000"),
        (1, 0xFFFC0000, 0x40000, 0x7F0000000000, "anon"),
        (2, 0x200000, 0x40000, 0x7F0000030000, "anon"),
        (3, 0x300000, 0x1000, 0x7F0000070000, "anon"),
    )
    at = UserMemory(told).regions
    assert at[0, 0x20000] - at[1, 0x40000] == 0x20000 and at[2, 0x40000] - at[1, 0x40000] == 0x30000
    assert not at[1, 0x40000] - 0x1000 < at[3, 0x1000] < at[1, 0x40000] + 0x70000
    host = ReplayedHost(told, "legacy", Matcher())
    for event in told.events:
        host.act(parse(event))
    host.vm.write_guest(0xE0010, b"once")
    assert host.vm.read_guest(0xFFFE0010, 4) == b"once"


def test_a_skewed_address_stays_skewed() -> None:
    """The kernel has no large page in a slot whose memory is aligned otherwise: an address tells."""
    at = UserMemory(capture((0, 0, 4 * MIB, 0x7F0000201000, "thp"))).regions[0, 4 * MIB]
    assert at % (2 * MIB) == 0x1000


@pytest.mark.parametrize(("backing", "level", "room"), [("huge", 2, 4 * MIB), ("giant", 3, 1 << 30)])
def test_hugetlb_gives_whole_pages(backing: str, level: int, room: int) -> None:
    told = UserMemory(capture((0, 0, 3 * MIB, None, backing), (1, 8 * MIB, MIB, None, "anon")))
    ((first, size, kind),) = told.huge_pages()
    assert (first, size, kind.level) == (0, room, level) and told.regions[1, MIB] >= room


def test_transparent_huge_pages_are_where_frames_lie_in_a_row() -> None:
    """The second 2 MiB have a hole, the third are aligned otherwise."""
    frames = [(0, 0x1000, 0x8000, 512 + 100), (0, 0x1000 + 613, 0x9065, 411), (0, 0x1400, 0xA001, 512)]
    told = UserMemory(capture((0, 0x1000000, 8 * MIB, None, "thp"), frames=frames))
    assert [(first, size) for first, size, _ in told.huge_pages()] == [(0, 2 * MIB)]
