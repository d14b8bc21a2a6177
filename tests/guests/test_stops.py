# SPDX-License-Identifier: GPL-2.0-only
"""Stops of the CPU change nothing: every guest gives the same answers, exits and counters with them as without."""

from pathlib import Path

import msgspec
import pytest
from unicorn import unicorn_const as uc_const

from shadowmmu.machine.loader import read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult, Reason
from shadowmmu.machine.seam import Exit

GUESTS = Path(__file__).parents[2] / "guests"
NAMES = sorted(path.stem for path in GUESTS.glob("*.toml"))
STORES = 101  # from one stop to the next; a prime, so that it meets loops everywhere
EXITS = 3000  # as far as the guests are run


class StoppedMachine(Machine):
    """Stopped on every way into the guest, and behind every 101st store, before the next block of code."""

    def __init__(self, name: str) -> None:
        self.stores = 0
        super().__init__(read_guest(GUESTS / f"{name}.toml"), on_exit=self._stop_at_entry)
        for processor in self.processors:
            processor.cpu._uc.hook_add(uc_const.UC_HOOK_MEM_WRITE, self._count_store)

    def _stop_at_entry(self, _machine: Machine, _exit: Exit) -> None:
        self._stop_cpus()

    def _count_store(self, *_: object) -> bool:
        self.stores += 1
        if self.stores % STORES == 0:
            self._stop_cpus()
        return True


def _comparable(result: GuestResult) -> GuestResult:
    return msgspec.structs.replace(result, host_memory=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_that_is_stopped_again_and_again(name: str) -> None:
    stopped = StoppedMachine(name)
    result = stopped.run(max_exits=EXITS)
    assert result.reason in (Reason.PASSED, Reason.EXIT_LIMIT), f"{result.reason}: {result.detail}\n{result.output}"
    assert "FAIL" not in result.output
    assert stopped.stores > STORES
    if stopped.guest.vcpus == 1:  # else a stop ends the turn of a vCPU
        assert _comparable(result) == _comparable(Machine(stopped.guest).run(max_exits=EXITS))
