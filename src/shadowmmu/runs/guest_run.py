# SPDX-License-Identifier: GPL-2.0-only
"""One run of a guest as data: what the machine counted, what the audit said, what is left in the shadow."""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Literal

import msgspec

from shadowmmu import EngineError, Vm
from shadowmmu.border.files import read_file
from shadowmmu.border.limits import IMAGE
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.errors import BadInput
from shadowmmu.look.picture import count_tables
from shadowmmu.machine.last_seen import LastSeen
from shadowmmu.machine.loader import Guest
from shadowmmu.machine.machine import MAX_EXITS, Machine
from shadowmmu.machine.result import GuestResult, Reason
from shadowmmu.machine.seam import CpuError, Exit
from shadowmmu.runs.event_log import EventLog

if TYPE_CHECKING:
    from shadowmmu.check.audit import Violation

Audit = Literal["every", "exit", "off"]
THOROUGH = 64
"""Exits for each audit that looks at everything."""
Viewer = Literal["nobody", "audit", "events", "caller"]
"""Who looks at each exit: the audit, or, so that it is served in Python, a log of the engine's events or whoever makes the run."""


class Violated(Exception):
    """The audit found something; the run ends here."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__(violations[0])
        self.violations = violations


class Reached(Exception):
    """What a run was to go on to has come; the run ends here, and may be taken up again."""


class RunReport(msgspec.Struct, kw_only=True):
    """One run. `result` is None if it was cut short: `violations` of the audit, or what `broke` the CPU or the engine."""

    guest: str
    roots: str
    exits: int
    in_hook: int = 0
    """Of these served in the CPU's hook, without Python."""
    on_raw_state: bool = False
    """In the hook exits are served on the CPU's own state, and not on what its public API saves of it."""
    seen_by: Viewer = "nobody"
    """Who has seen each exit; then none is served in the hook."""
    result: GuestResult | None
    audit: Audit
    audits: int
    violations: list[str]
    broke: str
    tables: dict[str, int]
    counters: dict[str, int]
    last_seen: LastSeen
    as_expected: bool
    """The guest passed, or halted as its description says it would, and no audit failed."""
    reproduce: str = ""
    """The command that leads there again, if the run was cut short."""


class Auditor:
    """Audits a VM, counts how often, and raises `Violated` at the first violation.

    After every exit the audit looks at what it knows of; at one of `THOROUGH`, and when the guest has ended, at everything.
    """

    def __init__(self, when: Audit) -> None:
        self.when, self.count = when, 0
        self.untold: Container[int] = ()
        """Words that were stored to unseen by the MMU."""
        self._audits: Callable[[bool], list[Violation]] | None = None

    def __call__(self, vm: Vm) -> None:
        self.count += 1
        self._look(vm, thorough=False)

    def end(self, vm: Vm) -> None:
        """The guest has ended."""
        if self.when == "exit":
            self.count += 1
        if self.when != "off":
            self._look(vm, thorough=True)

    def _look(self, vm: Vm, *, thorough: bool) -> None:
        if self._audits is None:
            self._audits = import_module("shadowmmu.check.audit").Audits(vm, untold=self.untold, every=THOROUGH)
        found = self._audits(thorough)
        if found:
            raise Violated([str(violation) for violation in found])


class GuestRun:
    """A guest in a machine, to be run once or in parts; `machine` may be looked at in between and afterwards.

    named   what to call the guest by on a command line
    audit   after "every" exit of the guest, once at its "exit", or "off"
    log     where the engine's events go, if they are wanted; it is started here
    """

    def __init__(
        self,
        guest: Guest,
        named: str,
        *,
        roots: str = "special",
        kernel: str = DEFAULT_KERNEL,
        audit: Audit = "off",
        on_output: Callable[[str], None] | None = None,
        on_exit: Callable[[Machine, Exit], None] | None = None,
        on_look: Callable[[Machine], None] | None = None,
        log: EventLog | None = None,
    ) -> None:
        self.guest, self.named, self.auditor = guest, named, Auditor(audit)
        self._hooks = [hook for hook in (log and log.on_exit, on_exit) if hook]
        self._logs = log is not None
        self._until: Callable[[Machine], bool] | None = None
        try:
            audits = self.auditor if audit == "every" and not self._hooks else None
            self.machine = Machine(guest, roots=roots, kernel=kernel, on_output=on_output, on_look=on_look, audit=audits)
        except CpuError as error:
            raise BadInput(str(error)) from None
        if self.machine.host is not None:
            self.auditor.untold = self.machine.host.untold
        if log is not None:
            log.start()
            self.machine.vm.start_trace()

    def run(self, max_exits: int | None = None, until: Callable[[Machine], bool] | None = None, max_ticks: int | None = None) -> RunReport:
        """Run to the guest's end, or to exit number `max_exits`, which then is no failure, or to the exit where `until` holds.

        max_ticks  of virtual time; then it is one
        """
        self._until = until
        seen_by = self._seen_by()
        self.machine.on_exit = self._after_exit if seen_by in ("events", "caller") else None
        result: GuestResult | None = None
        violations: list[str] = []
        broke = ""
        try:
            result = self.machine.run(max_exits=max_exits or MAX_EXITS, max_ticks=max_ticks)
            self.auditor.end(self.machine.vm)
        except Violated as violated:
            violations = violated.violations
        except Reached:
            pass
        except (CpuError, EngineError) as error:
            broke = f"{type(error).__name__}: {error}"
        vm, when = self.machine.vm, self.auditor.when
        return RunReport(
            guest=self.guest.name,
            roots=vm.roots,
            exits=self.machine.exits,
            in_hook=self.machine.in_hook,
            on_raw_state=self.machine.on_raw_state,
            seen_by=seen_by,
            result=result,
            audit=when,
            audits=self.auditor.count,
            violations=violations,
            broke=broke,
            tables=count_tables(vm.shadow_pages()),
            counters=vm.counters(),
            last_seen=self.machine.last_seen(_image(self.guest)),
            as_expected=result is not None and not violations and _ended_well(self.guest, result.reason, max_exits),
            reproduce=self._command(self.machine.exits + bool(broke)) if violations or broke else "",
        )

    def _seen_by(self) -> Viewer:
        if self._logs:
            return "events"
        if self._hooks or self._until is not None:
            return "caller"
        return "audit" if self.auditor.when == "every" else "nobody"

    def _after_exit(self, machine: Machine, exit_: Exit) -> None:
        """A log has the exit before the audit finds something."""
        for hook in self._hooks:
            hook(machine, exit_)
        if self._hooks and self.auditor.when == "every":
            self.auditor(machine.vm)
        if self._until is not None and self._until(machine):
            raise Reached

    def _command(self, exits: int) -> str:
        """The command that runs as far as `exits`."""
        chosen = self.machine.vm.config.kernel
        kernel = "" if chosen == DEFAULT_KERNEL else f" --kernel {chosen}"
        return f"shadowmmu run {self.named} --roots {self.machine.vm.roots}{kernel} --audit {self.auditor.when} --max-exits {exits}"


def _image(guest: Guest) -> bytes:
    """Its file, if it is still there."""
    with suppress(BadInput):
        return read_file(guest.path, IMAGE, f"image {guest.path}", "build it")
    return b""


def _ended_well(guest: Guest, reason: Reason, max_exits: int | None) -> bool:
    if reason is Reason.EXIT_LIMIT:
        return max_exits is not None
    return reason is Reason.PASSED or (reason is Reason.HALTED and guest.end == "halt")
