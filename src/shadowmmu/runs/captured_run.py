# SPDX-License-Identifier: GPL-2.0-only
"""A captured guest run as code on any kernel's rules, as figures: its steps are what the guest says to its VMM."""

from __future__ import annotations

import msgspec

from shadowmmu import EngineError, TripleFault
from shadowmmu.captures.capture import Capture
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.replayed.replayed_vm import captured_roots
from shadowmmu.check.rerun.vmm import Vmm
from shadowmmu.engine.face.kernels import series_of
from shadowmmu.machine.emulator.decode import UnemulatedInstruction
from shadowmmu.machine.seam import CpuError
from shadowmmu.machine.vcpu.deliver import TaskSwitch
from shadowmmu.runs.measured import Measured, Steps, Told
from shadowmmu.trace.events import AnyEvent, InjException, Marker

MOST_EXITS = 100_000
SHUTDOWN = "shutdown"
_CANNOT_GO_ON = (EngineError, UnemulatedInstruction, CpuError, TaskSwitch)


class CapturedRun:
    """One run. `wanted`: the step whose events are kept, after which it ends."""

    def __init__(self, capture: Capture, kernel: str, wanted: int = 0) -> None:
        series = series_of(kernel)
        setup = msgspec.structs.replace(capture.setup, kernel=series, changed=kernel.removeprefix(series))
        on = msgspec.structs.replace(capture, setup=setup)
        self.steps = Steps(wanted)
        self.events: dict[str, int] = {}
        self.vmm = Vmm(on, captured_roots(capture), Matcher(), self._says, lambda _tag: None)

    def run(self) -> Measured:
        verdict = self._run()
        costs = self.vmm.vm.counters() | self.events
        return Measured(verdict=verdict, events=self.events, costs=costs, rules=list(self.steps.rules.values()), steps=self.steps.steps)

    def _run(self) -> str:
        """How it ended, which is its last step, too: a run that never ends parts from one that does."""
        vcpu, exits = self.vmm.vcpu, 0
        try:
            while not self.vmm.ended and not (self.steps.wanted and len(self.steps.steps) >= self.steps.wanted):
                if exits == MOST_EXITS:
                    return self._end(f"not ended after {exits:,} exits")
                exits += 1
                vcpu.step()
                if vcpu.processor.shutdown:
                    return self._end(SHUTDOWN)
                self.vmm.after_exit()
        except TripleFault:
            return self._end(SHUTDOWN)
        except _CANNOT_GO_ON as error:
            return self._end(str(error))
        return "ended"

    def _end(self, verdict: str) -> str:
        self._says([*self.vmm.take(), Marker(text=f"G seq=0 {verdict}")])
        return verdict

    def _says(self, events: list[AnyEvent]) -> None:
        """The guest has said something: the last of the events."""
        *did, said = events
        assert isinstance(said, Marker)
        text = said.text.split(" ", 2)[-1]
        # What faults while it is delivered is given again: the guest sees it once.
        new = [event for event in did if isinstance(event, InjException) and not event.reinjected]
        given = [(event.exception, event.has_error, event.error_code) for event in new]
        for event in did:
            self.events[event.name] = self.events.get(event.name, 0) + 1
        self.steps.add(self.vmm.vm, len(self.steps.steps) + 1, text, hash((text, tuple(given))), did)


def events_of_step(capture: Capture, kernel: str, number: int) -> list[Told]:
    """What happened up to the guest's so many-th words."""
    run = CapturedRun(capture, kernel, number)
    run.run()
    return run.steps.kept
