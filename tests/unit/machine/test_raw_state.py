# SPDX-License-Identifier: GPL-2.0-only
"""Unicorn's own state of its processor: where it is found, and that what does not pass for it is not used."""

from __future__ import annotations

import ctypes
import struct

import pytest
from unicorn import x86_const

from shadowmmu.machine.cpu import unicorn_raw
from shadowmmu.machine.cpu.raw_state import RawState
from shadowmmu.machine.cpu.unicorn_host import SvmHost
from shadowmmu.machine.cpu.unicorn_layout import layout
from shadowmmu.machine.cpu.unicorn_raw import StatePlace, address_by, find_raw_state, passes, spans_of, state_places

WHERE = layout()
SPANS = spans_of(WHERE)
RCX = WHERE.gpr + 8
FAR = 1 << 40


def own_state(host: SvmHost) -> int:
    """Its address."""
    return next(at for at in (address_by(host, place) for place in state_places()) if unicorn_raw._is_state(at, host, WHERE))


def context_of(host: SvmHost) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(host.context)) + WHERE.gpr


def test_it_is_found_and_read_and_written() -> None:
    host = SvmHost([])
    raw = find_raw_state(host, WHERE)
    assert raw is not None
    host.uc.reg_write(x86_const.UC_X86_REG_RCX, 0x1234)
    raw.read()
    assert struct.unpack_from("<Q", host.context, RCX) == (0x1234,)
    struct.pack_into("<Q", host.context, RCX, 0x5678)
    raw.write()
    assert host.uc.reg_read(x86_const.UC_X86_REG_RCX) == 0x5678


def test_all_that_exits_work_on_is_tried_and_as_before_then() -> None:
    host = SvmHost([])
    host.read_context()
    before = bytes(host.context)
    assert find_raw_state(host, WHERE) is not None
    assert bytes(host.context) == before
    host.read_context()
    assert bytes(host.context) == before
    used = {WHERE.gpr + at + i for at, size in SPANS for i in range(size)}
    for at, size in (
        (WHERE.gpr, 128),
        (WHERE.rip, 8),
        (WHERE.hflags, 4),
        (WHERE.segments, 240),
        (WHERE.cr3, 16),
        (WHERE.efer, 8),
        (WHERE.kernel_gs_base, 8),
        (WHERE.error_code, 4),
        (WHERE.dr6, 16),
    ):
        assert used >= set(range(at, at + size))


@pytest.mark.parametrize(("pointer", "behind"), [(0, 8), (0, -8), (0, 1 << 45), (0, -(1 << 45)), (8, 0), (-8, 0)])
def test_another_place_is_not_used(pointer: int, behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [StatePlace(place.pointer + pointer, place.behind + behind) for place in state_places()]
    assert wrong
    monkeypatch.setattr(unicorn_raw, "state_places", lambda: wrong)
    assert find_raw_state(SvmHost([]), WHERE) is None


def test_a_copy_does_not_pass() -> None:
    """It holds the same, but what is written by one way does not come out by the other."""
    host = SvmHost([])
    host.read_context()
    copy = ctypes.create_string_buffer(bytes(host.context[WHERE.gpr :]))
    before = bytes(host.context)
    assert not passes(RawState(ctypes.addressof(copy), context_of(host), SPANS), host, WHERE, SPANS)
    host.read_context()
    assert bytes(host.context) == before


@pytest.mark.parametrize("number", range(len(SPANS)))
@pytest.mark.parametrize("change", ["left out", "short", "moved"])
def test_a_register_that_is_not_passed_on_is_noticed(number: int, change: str) -> None:
    host = SvmHost([])
    wrong = list(SPANS)
    at, size = wrong[number]
    wrong[number] = {"left out": (at, 0), "short": (at, size - 1), "moved": (at + 1, size)}[change]
    assert passes(RawState(own_state(host), context_of(host), SPANS), host, WHERE, SPANS)
    assert not passes(RawState(own_state(host), context_of(host), wrong), host, WHERE, SPANS)


@pytest.mark.parametrize("follows", [True, False])
def test_registers_in_two_places(follows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes with them may be the one that the processor has or not; what does not change is not it."""
    places, read = unicorn_raw._places, unicorn_raw._read
    second: dict[int, int] = {}

    def twice(memory: int, record: bytes, shown: bytes) -> dict[int, list[StatePlace]]:
        found = places(memory, record, shown)
        second.update({at + FAR: at for at in found})
        return found | {at + FAR: [StatePlace(0, 0)] for at in found}

    def mirrored(memory: int, at: int, size: int) -> bytes:
        first = second.get(at - 8)
        return read(memory, at, size) if first is None else read(memory, first + 8, size) if follows else b""

    monkeypatch.setattr(unicorn_raw, "_places", twice)
    monkeypatch.setattr(unicorn_raw, "_read", mirrored)
    found = state_places.__wrapped__()
    assert found == () if follows else found == state_places()


def test_more_spans_than_there_is_room_for() -> None:
    with pytest.raises(ValueError, match="9 spans, more than 8"):
        RawState(0, 0, [(0, 1)] * 9)


def test_pointers_that_lead_there_by_chance() -> None:
    """They come first in one engine, and lead elsewhere in the next."""
    host = SvmHost([])
    by_chance = [StatePlace(0, 0), StatePlace(8, -(1 << 45))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unicorn_raw, "state_places", lambda: [*by_chance, *state_places()])
        assert find_raw_state(host, WHERE) is not None


def test_the_context_is_no_state() -> None:
    host = SvmHost([])
    assert unicorn_raw._is_copy(context_of(host), host)
    assert not unicorn_raw._is_copy(own_state(host), host)
