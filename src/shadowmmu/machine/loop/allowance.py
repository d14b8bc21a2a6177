# SPDX-License-Identifier: GPL-2.0-only
"""How far a CPU may run by itself before the machine looks around, and how many exits it may serve in its hook."""

from typing import NamedTuple

from shadowmmu.machine.devices.clock import TICKS_PER_EXIT, Clock
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.quick_exits import FOREVER

_SLICE = 10_000_000
"""Instructions after which a CPU without an exit is stopped."""
_QUICK = 5_000
"""Exits, after which one is not served in the CPU's hook though it could be."""


class Limits(NamedTuple):
    """Of a run: see `Machine.run`."""

    exits: int
    quiet: int
    ticks: int | None


class Turn(NamedTuple):
    """Of one vCPU: it ends with this exit of the machine, or this instruction of its CPU; FOREVER: while no other one is to go on."""

    last_exit: int
    last_instruction: int


def allow(p: Processor, clock: Clock, turn: Turn, limits: Limits, *, exits: int, quiet: int, quick: bool) -> None:
    """To the end of its turn, the next timer, or a limit.

    exits  of the machine so far
    quiet  instructions since the last one
    quick  whether it may serve any by itself
    """
    executed, deadline = p.cpu.executed, FOREVER
    ends = [tick for tick in (clock.next_deadline, limits.ticks) if tick is not None]
    if ends:
        deadline = executed + max(min(ends) - clock.now, 0)
    unheard = min(_SLICE, max(limits.quiet - quiet, 1))
    p.cpu.stop_at(min(executed + unheard, turn.last_instruction, deadline))
    if p.quick is not None:
        left = min(turn.last_exit - exits, limits.exits - exits, _QUICK) - 1 if quick else 0
        slice_, alone = min(_SLICE, limits.quiet), turn.last_exit == FOREVER
        waits = p.apic is not None and p.apic.attention
        p.quick.begin(max(left, 0), slice_, turn.last_instruction, deadline, TICKS_PER_EXIT, exits, clock.now, alone, waits)


def count_served(p: Processor) -> int:
    """Exits that were served in the CPU's hook; returns how many."""
    return 0 if p.quick is None else p.count_quick(p.quick)
