# SPDX-License-Identifier: GPL-2.0-only
"""The child in which hostile calls are made: it takes sequences of calls from its standard input, and answers what came of each.

A call is a target, a name, arguments and keywords. What cannot be known before the run stands in them as a `Symbol`.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import resource
import struct
import sys
from typing import Any, NamedTuple

from shadowmmu import EngineError, Vm
from shadowmmu.check.audit import audit

ALLOWED = (ValueError, TypeError, OverflowError, EngineError, MemoryError)
SECONDS = 20
"""CPU time that one sequence may take."""
ADDRESS_SPACE = 8 << 30
MEMORY_IN_USE = 0x8000
AFTER_RESET = 0x60000010
"""CR0 of a CPU that has been reset."""


class Symbol(NamedTuple):
    """A value of the VM at hand: "entry" an address in a shadow table, "marked" its bytes with A and D, "state" a saved state."""

    kind: str
    first: int = 0
    second: int = 0
    changes: tuple[tuple[int, int], ...] = ()


class Call(NamedTuple):
    target: str
    name: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.keywords)]
        return f"{self.target}.{self.name}({', '.join(words)})"


class Answer(NamedTuple):
    wrong: str
    """What must not be; empty if all is well."""
    reached: frozenset[str]


class World:
    """Two VMs made alike: most calls are made on the first."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.vms = [Vm(**options), Vm(**options)]
        self.states: list[bytes] = []
        self.reached: set[str] = set()
        if self.vms[0].memory_size >= MEMORY_IN_USE:  # full of entries that lead to one another, so that walks get somewhere
            for at in range(0, MEMORY_IN_USE, 8):
                self.vms[0].write_guest(at, struct.pack("<Q", (at * 0x9E37 & 0x7000) | 0x67))

    def resolve(self, vm: Vm, value: Any) -> Any:
        if not isinstance(value, Symbol):
            return value
        if value.kind == "state":
            state = bytearray(self.states[value.first % len(self.states)] if self.states else vm.save())
            for at, flip in value.changes:
                state[at % len(state)] ^= flip
            return bytes(state)[value.second :]
        pages = vm.shadow_pages()
        place = pages[value.first % len(pages)].hpa + 8 * value.second if pages else 0x100000000
        return place if value.kind == "entry" else (vm.read_host_u64(place) | 0x360).to_bytes(8, "little")

    def make(self, call: Call) -> None:
        vm = self.vms[call.target.startswith("other")]
        target = vm if call.target.endswith("vm") else vm.vcpus[int(call.target[-1]) % len(vm.vcpus)]
        arguments = [self.resolve(vm, value) for value in call.arguments]
        keywords = {name: self.resolve(vm, value) for name, value in call.keywords}
        self.reached.add(f"{type(target).__name__}.{call.name}")
        found = getattr(target, call.name)
        if callable(found):
            found = found(*arguments, **keywords)
        elif arguments:
            try:
                setattr(target, call.name, arguments[0])
            except AttributeError:
                return
        if found is False:
            self.after_refusal(target, call.name)
        if call.name == "save":
            self.states.append(found)
        self.look(found)

    def after_refusal(self, target: Any, name: str) -> None:
        """As the face asks, since the MMU is half in L2: an L2 that was refused is left, a vCPU whose L1 has shut down is reset."""
        if name in ("nested_vmrun", "nested_vmentry"):
            back_in_l1 = target.nested_vmexit()
        else:
            back_in_l1 = name != "nested_vmexit"
        if not back_in_l1:
            target.set_sregs(AFTER_RESET, 0, 0, 0)

    def look(self, found: Any) -> None:
        """Read what a view has to say."""
        if isinstance(found, tuple) and hasattr(found, "_fields"):
            for name in dir(found):
                if not name.startswith("_"):
                    self.reached.add(f"{type(found).__name__}.{name}")
                    getattr(found, name)
        for part in found if isinstance(found, list | tuple) else ():
            self.look(part)

    def faults(self) -> str:
        for vm in self.vms:
            found = [*vm.bugs(), *map(str, audit(vm))]
            if found:
                return "\n".join(found[:8])
        return ""


def answer(options: dict[str, Any], calls: list[Call]) -> Answer:
    """Make the calls one after the other; what is raised must be one of `ALLOWED`."""
    try:
        world = World(options)
    except ALLOWED:
        return Answer("", frozenset())
    for call in calls:
        try:
            world.make(call)
        except ALLOWED as error:
            if not str(error) or "\n" in str(error):
                return Answer(f"{call}: {type(error).__name__} says {str(error)!r}", frozenset(world.reached))
        except BaseException as error:  # a message, not an end: hypothesis shrinks it
            return Answer(f"{call}: {type(error).__name__}: {error}", frozenset(world.reached))
    return Answer(world.faults(), frozenset(world.reached))


def serve() -> None:
    faulthandler.enable()
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # AddressSanitizer's shadow alone takes terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    while True:
        try:
            options, calls = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + SECONDS, resource.RLIM_INFINITY))
        pickle.dump(answer(options, calls), sys.stdout.buffer)
        sys.stdout.buffer.flush()
        gc.collect()  # a VM and its vCPUs refer to each other
