# SPDX-License-Identifier: GPL-2.0-only
"""Guests of captures that there are, written as the kit's own, to be captured anew: on the same host, or on another kernel.

A capture holds all that its guest was: memory, registers, memslots, operations, the host's script, and what the guest's CPU and the
host lacked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kit.errors import KitError
from kit.guest import REAL, Guest, Slot
from kit.run import Host
from shadowmmu.captures import cpuid, find
from shadowmmu.captures.capture import Capture, Setup
from shadowmmu.captures.lookahead import rescheduled_faults
from shadowmmu.check.rerun.entry_state import entry_states
from shadowmmu.check.rerun.script import STATS, Script

HOST = "host.json"
"""Beside the guests: the host that they are for."""
QEMU_ADDRESS_BITS = 40
"""Of the CPU that QEMU emulates, if it is not told otherwise."""
FINAL, STORED = "final", "H stored "
LOOKS = (STATS, "window", "translate")
"""Commands that change nothing."""


class Again(Guest):
    """The guest of a capture. Its code ends as it did: nothing is added."""

    def __init__(self, capture: Capture) -> None:
        guest = capture.guest
        super().__init__(guest.name, REAL, guest.desc)
        self._states = [dict(state) for state in entry_states(capture)]
        if len(self._states) < capture.vcpus:
            raise KitError(f"{capture.name} does not tell where its other vCPUs begin: name others")
        self._l2_ops = msgspec.to_builtins(guest.l2_ops)
        self.ops = msgspec.to_builtins(guest.ops)
        self.slots = [Slot(slot.id, slot.gpa, slot.size, slot.backing, slot.flags) for slot in guest.memslots]
        self.script = list(_commands(Script(guest)))
        self.other_vcpus = self._states[1:]
        self.cpu = list(_cpu(capture.setup))
        self.dump_each_op = any(dump.tag != FINAL for dump in capture.dumps)
        self.busy = bool(rescheduled_faults(capture.events))
        self.stepped = any(marker.text.startswith(STORED) for marker in capture.markers)
        for gpa, data in capture.image:
            self.memory.write(gpa, data)

    @property
    def entry_state(self) -> dict[str, int]:
        return self._states[0]

    def description(self) -> dict[str, Any]:
        return super().description() | {"bits": self.entry_state["mode"], "l2_ops": self._l2_ops}

    def end(self) -> None:
        """It has its own."""


def _commands(script: Script) -> Iterator[list[str]]:
    """Of each call, in the runner's words: a slot that comes again has the flags that it had."""
    while not script.is_over:
        yield [_known(script, command) for command in script.call()]


def _known(script: Script, command: str) -> str:
    word, *arguments = command.split()
    if word in LOOKS:
        return command
    script.mark(command)
    return f"readd {arguments[0]} {script.slots[int(arguments[0])].flags:x}" if word == "addslot" else command


def _cpu(setup: Setup) -> Iterator[str]:
    """What its CPU and its VM had not, whatever the host has."""
    yield from (f"nofeature {leaf:x} {register} {bit}" for leaf, register, bit in cpuid.lacking(setup))
    yield f"physbits {setup.maxphyaddr}"
    if setup.guest_vendor != "host":
        yield f"vendor {cpuid.VENDORS[setup.guest_vendor]}"
    if setup.quirks_off:
        yield f"noquirks {setup.quirks_off:x}"


def host_of(setup: Setup) -> Host:
    parameters = [] if setup.mmio_caching else ["mmio_caching=0"]
    parameters += ["nx_huge_pages=force"] if setup.nx_huge_pages else []
    parameters += ["eager_page_split=0"] if setup.tdp_mmu and not setup.eager_page_split else []
    bits = 0 if setup.host_maxphyaddr == QEMU_ADDRESS_BITS else setup.host_maxphyaddr
    return Host(setup.npt, setup.tdp_mmu or not setup.npt, setup.host_levels == 5, bits, tuple(parameters))


class Anew(NamedTuple):
    """Guests of one host, and the set that they are."""

    name: str
    guests: list[Again]
    host: Host

    def save(self, folder: Path) -> None:
        for guest in self.guests:
            guest.save(folder)
        (folder / HOST).write_bytes(msgspec.json.encode(self.host))


def anew(wanted: tuple[str, ...]) -> Anew:
    """Of the captures that these names or paths mean."""
    captures = [found.load() for name in wanted for found in find.find(name)]
    if not captures:
        raise KitError("no captures are named: give a set, as edges, or set/guest; shadowmmu captures lists them")
    twice = [name for name, count in Counter(capture.guest.name for capture in captures).items() if count > 1]
    if twice:
        raise KitError(f"more than one of the captures has a guest {twice[0]}: name them one after the other, each --called otherwise")
    hosts = {host_of(capture.setup): capture.name for capture in captures}
    if len(hosts) > 1:
        raise KitError(f"{' and '.join(list(hosts.values())[:2])} are of two hosts: name those of one set")
    return Anew(f"{captures[0].set}_anew", [Again(capture) for capture in captures], next(iter(hosts)))


def host_in(folder: Path) -> Host:
    """That which the guests in a folder are for; shadow paging, if nothing says it."""
    path = folder / HOST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Host) if path.exists() else Host()
    except msgspec.MsgspecError as error:
        raise KitError(f"{path} tells of no host: {error}; write the guests anew") from error
