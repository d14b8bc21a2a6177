# SPDX-License-Identifier: GPL-2.0-only
"""Hostile guests on the whole machine: every run ends with a verdict, every exit passes the audit, nothing of the host is seen.

And the root designs cannot be told apart: the same end, the same registers, exceptions and memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hostile import MEMORY, REGISTERS, hostile

from shadowmmu import ROOT_DESIGNS
from shadowmmu.check.audit import audit
from shadowmmu.engine.face.vm import Vm
from shadowmmu.machine.result import Reason

PAGE = 4096
CANARY = bytes.fromhex("c55aee119d773b42") * (PAGE // 8)
SPARE_PAGES = 60  # frames behind guest memory that no memslot maps, the shared zeroes before them left out
LIMITS = {Reason.EXIT_LIMIT, Reason.SPINNING}
MAX_EXITS = 300


class Saw(NamedTuple):
    """What a guest has to tell its end by."""

    reason: Reason
    detail: str
    registers: tuple[int, ...]
    injected: dict[str, int]
    memory: bytes


def sound(vm: Vm) -> None:
    assert audit(vm) == []
    assert vm.bugs() == []


def plant_canaries(vm: Vm) -> None:
    start, size, _ = vm.host_regions()[1]
    assert size >= MEMORY + (1 + SPARE_PAGES) * PAGE
    for page in range(SPARE_PAGES):
        vm.write_host(start + MEMORY + (1 + page) * PAGE, CANARY)


def run(mode: str, seed: int, features: tuple[str, ...], roots: str) -> Saw:
    machine: Any = hostile(mode, seed, features, roots=roots, audit=sound)
    plant_canaries(machine.vm)
    result = machine.run(max_exits=MAX_EXITS, max_quiet=10_000_000)
    memory = machine.vm.read_guest(0, MEMORY)
    assert CANARY[:8] not in memory
    state = machine.processors[0].cpu.state()
    return Saw(result.reason, result.detail, (*state.gpr, state.rip, state.rflags), result.injected, memory)


CPUS = {"plain": (), "svm": ("svm",), "npt": ("svm", "npt")}
GUESTS = [(mode, cpu) for mode in REGISTERS for cpu in CPUS if (mode, cpu) != ("5-level", "npt")]  # nested tables here have four levels


@pytest.mark.parametrize(("mode", "cpu"), GUESTS)
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 6, 7])
def test_no_guest_breaks_the_machine_or_tells_the_designs_apart(mode: str, cpu: str, seed: int) -> None:
    first, *others = (run(mode, seed, CPUS[cpu], roots) for roots in ROOT_DESIGNS)
    if not LIMITS & {saw.reason for saw in (first, *others)}:  # these come at different moments of the guest
        assert all(other == first for other in others)
