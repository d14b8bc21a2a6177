# SPDX-License-Identifier: GPL-2.0-only
"""Stores behind the engine's back, as an error in the engine would make them: into any host memory, and into its own arena."""

from __future__ import annotations

from ctypes import memmove, string_at
from uuid import uuid4

from shadowmmu import Vm


def in_process(vm: Vm, hpa: int) -> int:
    """Address, as the engine's pointers have it, of a byte of host memory."""
    (address,) = [address + hpa - start for start, size, address in vm.host_regions() if start <= hpa < start + size]
    return address


def poke_host(vm: Vm, hpa: int, value: int) -> None:
    """Eight bytes of host memory, a shadow table's too."""
    memmove(in_process(vm, hpa), value.to_bytes(8, "little"), 8)


def poke_arena(vm: Vm, at: int, data: bytes) -> None:
    """Bytes of the arena by their offset in a saved state; where that begins is told by guest memory's place in both."""
    _, _, guest_memory = vm.host_regions()[-1]
    mark, kept = uuid4().bytes, string_at(guest_memory, 16)
    memmove(guest_memory, mark, len(mark))
    place = vm.save().index(mark)
    memmove(guest_memory, kept, len(kept))
    memmove(guest_memory - place + at, data, len(data))
