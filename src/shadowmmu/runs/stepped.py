# SPDX-License-Identifier: GPL-2.0-only
"""A guest's run between two moments: what the MMU told, by which rules, and its tables before and after. Data only.

A run is the same every time, so that one goes as far as a moment to learn its exit, and another stops before it.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

from shadowmmu.errors import BadInput
from shadowmmu.look.changes import Changes, changes_between
from shadowmmu.look.picture import Picture, take_picture
from shadowmmu.machine.loader import Guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit
from shadowmmu.runs.guest_run import GuestRun
from shadowmmu.runs.measured import Measuring, Told
from shadowmmu.runs.moments import Moment


class Between(msgspec.Struct, kw_only=True):
    """From after exit `before` to after exit `after`. `kind`: of the last exit; `events`: what the MMU told at it; `broke`: what ended
    the run there, if anything did."""

    before: int
    after: int
    kind: str
    events: list[Told]
    changes: Changes
    broke: str = ""


class Steps(msgspec.Struct):
    steps: list[Between]


def exit_of(guest: Guest, named: str, roots: str, moments: list[Moment]) -> list[int]:
    """The numbers of the exits. Raises BadInput if one of the moments does not come."""

    def on_exit(machine: Machine, exit_: Exit) -> None:
        records = machine.vm.records()
        for moment in moments:
            moment.on_exit(machine, exit_, records)

    run = GuestRun(guest, named, roots=roots, on_exit=on_exit)
    run.machine.vm.start_trace()
    report = run.run(until=lambda _: all(moment.exit for moment in moments))
    for moment in moments:
        if not moment.exit:
            raise BadInput(f"guest {named} ended after {report.exits} exits, and {moment.text!r} did not come: name an earlier moment")
    return [moment.exit for moment in moments]


def between(guest: Guest, named: str, roots: str, exits: list[int]) -> list[Between]:
    """What changed from each of these exits, in their order, to the next."""
    watch = Measuring(exits[-1])
    last = ""

    def on_exit(machine: Machine, exit_: Exit) -> None:
        nonlocal last
        watch.steps.wanted, last = machine.exits, exit_.kind.value
        watch.steps.kept = []
        watch.on_exit(machine, exit_)

    run = GuestRun(guest, named, roots=roots, on_exit=on_exit)
    run.machine.vm.start_trace()
    told: list[Between] = []
    picture = _go_to(run, exits[0])
    for before, after in pairwise(exits):
        report = run.run(after)
        now = take_picture(run.machine.vm)
        changes = changes_between(picture, now)
        told.append(Between(before=before, after=report.exits, kind=last, events=watch.steps.kept, changes=changes, broke=report.broke))
        picture = now
    return told


def _go_to(run: GuestRun, number: int) -> Picture:
    if number:
        run.run(number)
    return take_picture(run.machine.vm)
