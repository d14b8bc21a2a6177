# SPDX-License-Identifier: GPL-2.0-only
"""A guest run twice: with exits served in the CPU's hook, and with all of them in the loop. Nobody can tell one from the other."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shadowmmu.engine.face.types import EventRecord
from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult
from shadowmmu.machine.seam import Exit

SOME_EXITS = 5000
PERIOD = 7_777  # ticks: some exits


class Run(NamedTuple):
    result: GuestResult
    expired: list[tuple[int, list[int]]]
    exits: int
    ticks: int
    state: list[object]
    events: list[EventRecord]
    served: int


def run(
    guest: Guest, *, quick: bool, raw_state: bool = True, code: bytes | None = None, roots: str = "special", exits: int = SOME_EXITS
) -> Run:
    """A run of the guest, in which all that can be served in the hook is, on the CPU's own state or by its public API, or nothing; a
    timer goes off again and again meanwhile."""

    def look(machine: Machine, exit_: Exit) -> None:
        pass

    loaded = None if code is None else load_bytes(guest, code)
    machine = Machine(guest, roots=roots, loaded=loaded, on_exit=None if quick else look, raw_state=raw_state)
    assert machine.on_raw_state is raw_state
    expired: list[tuple[int, list[int]]] = []

    def note() -> None:
        expired.append((machine.clock.now, [p.cpu.executed for p in machine.processors]))
        if not all(p.halted for p in machine.processors):
            timer.arm(machine.clock.now + PERIOD)

    timer = machine.clock.timer(note)
    timer.arm(PERIOD)
    machine.vm.start_trace(1 << 20)
    result = msgspec.structs.replace(machine.run(max_exits=exits), host_memory=0)
    assert machine.vm.lost_events == 0
    served = sum(p.quick.served for p in machine.processors if p.quick is not None)
    states = [p.cpu.state() for p in machine.processors]
    state: list[object] = [(one.gpr, one.rip, one.rflags, one.system, one.interrupt_shadow) for one in states]
    timer.arm(None)
    return Run(result, expired, machine.exits, machine.clock.now, state, machine.vm.records(), served)


def check_alike(quick: Run, slow: Run) -> None:
    assert slow.served == 0 and quick.served > 0
    assert quick._replace(served=0) == slow


def both(guest: Guest, code: bytes | None = None, *, roots: str = "special", exits: int = SOME_EXITS) -> Run:
    """The run with exits served in the hook, which is as the other one."""
    quick, slow = (run(guest, quick=quick, code=code, roots=roots, exits=exits) for quick in (True, False))
    check_alike(quick, slow)
    return quick
