# SPDX-License-Identifier: GPL-2.0-only
"""Where Unicorn keeps the state of its processor, found by telling values; each engine's is tried before it is used.

No public function tells it. The engine's own record, to which its handle points, has the address of a structure in which the state lies:
a pointer is looked for behind which general registers lie that the public API has written. It has to be the only one, and the registers
there have to change when they are written anew. Chance pointers may lead there too, in one engine and not in the next: all are kept, and
one is taken by which the engine at hand passes. Where a machine has no such place, or the state of one engine does not pass, exits are
served on contexts that the public API saves.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from shadowmmu.machine.cpu.raw_state import RawState
from shadowmmu.machine.cpu.unicorn_host import SvmHost
from shadowmmu.machine.cpu.unicorn_layout import Layout

_RECORD = 16 << 10
"""Bytes of the engine's record that are looked at."""
_WINDOW = 64 << 10
"""Bytes behind a pointer of it, in which the state may begin."""
_LOWEST = 1 << 16
_REGISTERS = 16
_TRIES = 3
"""Patterns that are passed through the state in each direction."""


class StatePlace(NamedTuple):
    """Of the first general register: `behind` bytes after what the pointer at offset `pointer` of the engine's record leads to."""

    pointer: int
    behind: int


def _read(memory: int, at: int, size: int) -> bytes:
    """Of this process, by its file in /proc: less or nothing where no memory is."""
    with suppress(OSError, OverflowError):
        return os.pread(memory, size, at)
    return b""


def _telling(number: int) -> list[int]:
    """Sixteen values of general registers that are nowhere else; RAX is the engine's own."""
    return [(0x5A17C0DE << 32) + (number << 24) + i * 0x010101 for i in range(_REGISTERS)]


def _shown(host: SvmHost, number: int) -> bytes:
    """Write them by the public API; how they lie in memory, but for RAX."""
    values = _telling(number)
    host.set_registers(values)
    return struct.pack("<15Q", *values[1:])


def _places(memory: int, record: bytes, shown: bytes) -> dict[int, list[StatePlace]]:
    """Addresses of such bytes behind pointers of the record, and by which of them each is reached."""
    pointers = struct.unpack(f"<{len(record) // 8}Q", record[: len(record) // 8 * 8])
    found: dict[int, list[StatePlace]] = {}
    for target in dict.fromkeys(pointer for pointer in pointers if pointer >= _LOWEST and pointer % 8 == 0):
        window = _read(memory, target, _WINDOW)
        behind = window.find(shown)
        while behind >= 0:
            found.setdefault(target + behind - 8, []).append(StatePlace(8 * pointers.index(target), behind - 8))
            behind = window.find(shown, behind + 1)
    return found


def _is_copy(at: int, host: SvmHost) -> bool:
    """It lies in the context, by which the registers were written."""
    context = ctypes.addressof(ctypes.c_ubyte.from_buffer(host.context))
    return context <= at < context + len(host.context)


@cache
def state_places() -> tuple[StatePlace, ...]:
    """Where engines of this process may have the state; none: it was not found, or not once."""
    host = SvmHost([])
    with suppress(OSError):
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        try:
            record = _read(memory, host.uc._uch.value, _RECORD)
            found = _places(memory, record, _shown(host, 1))
            anew = _shown(host, 2)
            found = {at: by for at, by in found.items() if not _is_copy(at, host) and _read(memory, at + 8, len(anew)) == anew}
        finally:
            os.close(memory)
        if len(found) == 1:
            return tuple(found.popitem()[1])
    return ()


def spans_of(where: Layout) -> list[tuple[int, int]]:
    """Of what exits that are served in the CPU's hook work on, from the first general register on."""
    parts = (where.gpr, where.head_end - where.gpr), (where.efer, 8), (where.kernel_gs_base, 8), (where.error_code, 4), (where.dr6, 16)
    return [(at - where.gpr, size) for at, size in parts]


def find_raw_state(host: SvmHost, where: Layout) -> RawState | None:
    """That of this engine, which runs nothing yet; None: it is not to be used."""
    context, spans = ctypes.addressof(ctypes.c_ubyte.from_buffer(host.context)) + where.gpr, spans_of(where)
    for place in state_places():
        at = address_by(host, place)
        if _is_state(at, host, where):
            raw = RawState(at, context, spans)
            return raw if passes(raw, host, where, spans) else None
    return None


def address_by(host: SvmHost, place: StatePlace) -> int:
    """Where that leads to in an engine."""
    pointer: int = ctypes.c_uint64.from_address(host.uc._uch.value + place.pointer).value
    return pointer + place.behind


def _is_state(at: int, host: SvmHost, where: Layout) -> bool:
    """All that a context has of it lies there."""
    host.read_context()
    wanted = bytes(host.context[where.gpr :])
    with suppress(OSError):
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        try:
            return _read(memory, at, len(wanted)) == wanted
        finally:
            os.close(memory)
    return False


def passes(raw: RawState, host: SvmHost, where: Layout, spans: Iterable[tuple[int, int]]) -> bool:
    """What one way writes into all of it that is used the other way reads, and nothing else changes."""
    host.read_context()
    kept = bytes(host.context)
    used = [slice(where.gpr + at, where.gpr + at + size) for at, size in spans]
    try:
        for number in range(_TRIES):
            shown = _marked(kept, used, 2 * number)
            host.context[:] = shown
            host.write_context()
            host.context[:] = kept
            raw.read()
            if bytes(host.context) != shown:
                return False
            shown = _marked(kept, used, 2 * number + 1)
            host.context[:] = shown
            raw.write()
            host.context[:] = kept
            host.read_context()
            if bytes(host.context) != shown:
                return False
        return True
    finally:
        host.context[:] = kept
        host.write_context()


@cache
def _pattern(number: int) -> bytes:
    return bytes((at * 7 + number * 41 + 1) % 251 for at in range(_WINDOW // 8))


def _marked(context: bytes, used: Iterable[slice], number: int) -> bytes:
    """The context with other values in all bytes that are used."""
    marked = bytearray(context)
    for span in used:
        marked[span] = _pattern(number)[span]
    return bytes(marked)
