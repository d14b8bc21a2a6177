# SPDX-License-Identifier: GPL-2.0-only
"""An access in the midst of whose fault something happens elsewhere: the host lets it in."""

from __future__ import annotations

from typing import Any

from shadowmmu.check.fuzz import Kind, Op
from shadowmmu.check.fuzz.operations import MOVE_PAGE, OBSOLETE, PAGE
from shadowmmu.hardware.walk import FETCH, USER
from shadowmmu.machine.host import HostStep
from shadowmmu.runs.exported.player import Store, own
from shadowmmu.runs.exported.recording import Recording
from shadowmmu.runs.exported.steps import Do, Flag, flags_of

_EVENTS = {OBSOLETE: "obsolete", MOVE_PAGE: "move"}


def export_race(recording: Recording, op: Op) -> None:
    """The raced access may come to this or that. Raises NotExported."""
    access = Op(Kind.ACCESS, op.vcpu, op.a, op.b & 0xFFF, 1, op.d & 0xFF)
    gva, fetch = recording.guest._address(op.vcpu, op.a), bool(access.b & FETCH)
    levels, right = recording.levels(op.vcpu), recording.expected(access, gva)
    outcome = recording.guest.do(op)
    if outcome == "not now":
        return
    if "," not in outcome and outcome != "not reached":
        raise recording.refuse(op, f"ends in a {outcome}")
    if fetch and recording.leads_nowhere(right):
        raise recording.refuse(op, "fetches code where there is no memory")
    raced: dict[str, Any] = {"flags": flags_of(access.b) | Flag.ANY, "address": gva, "value": access.d}
    do = Do.FETCH if fetch else Do.ACCESS
    store = _store(op)
    if outcome.startswith(("waited", "not reached")):
        recording.add(do, op, **raced)
        if outcome.startswith("waited"):
            recording.store(Op(Kind.POKE, 1 - op.vcpu, *store), store)
        return
    recording.warm(op, own(levels, bool(access.b & USER)), flags_of(access.b) & ~Flag.WRITE)
    recording.add_host(op, _host_step(op, store))
    recording.add(do, op, **raced)
    recording.add_host(op, HostStep(at=0, do="race-is-over"))


def _store(op: Op) -> Store:
    if op.kind == Kind.MEANWHILE:
        return op.c * PAGE, 1, 0
    size = op.b >> 16
    return op.c & -size, size, op.d & (1 << 8 * size) - 1


def _host_step(op: Op, store: Store) -> HostStep:
    gpa, size, value = store
    how: dict[str, Any] = {"address": gpa, "size": size, "value": value if value < 1 << 63 else hex(value)}
    if op.kind == Kind.MEANWHILE:
        return HostStep(at=0, do="race", event=_EVENTS[op.b >> 16], **how)  # type: ignore[arg-type]
    return HostStep(at=0, do="race", point=1 + (op.b >> 12 & 1), **how)  # type: ignore[arg-type]
