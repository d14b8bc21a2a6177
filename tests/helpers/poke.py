# SPDX-License-Identifier: GPL-2.0-only
"""Stores behind the engine's back, as an error in the engine would make them: into any host memory, and into its own arena."""

from __future__ import annotations

from ctypes import memmove

from shadowmmu import Vm
from shadowmmu.engine.face.seal import SEAL


def in_process(vm: Vm, hpa: int) -> int:
    """Address, as the engine's pointers have it, of a byte of host memory."""
    (address,) = [address + hpa - start for start, size, address in vm.host_regions() if start <= hpa < start + size]
    return address


def poke_host(vm: Vm, hpa: int, value: int) -> None:
    """Eight bytes of host memory, a shadow table's too."""
    memmove(in_process(vm, hpa), value.to_bytes(8, "little"), 8)


def poke_arena(vm: Vm, at: int, data: bytes) -> None:
    """Bytes of the arena by their offset in a saved state; host memory is the last thing in it."""
    _, size, address = vm.host_regions()[-1]
    memmove(address + size - (len(vm.save()) - SEAL) + at, data, len(data))
