# SPDX-License-Identifier: GPL-2.0-only
"""What has been made of a list so far: the fuzz's own VM, which does it, and the steps of the player, on whose side the same is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module

import msgspec

from shadowmmu.check.fuzz import Kind, Op, Setup, tell
from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.check.fuzz.operations import FRAMES, PAGE, TABLES
from shadowmmu.check.fuzz.worlds import guest_of
from shadowmmu.hardware.walk import paging
from shadowmmu.machine.host import Host, HostMemslot, HostStep
from shadowmmu.runs.exported.expected import Expected, expected
from shadowmmu.runs.exported.host_steps import host_of
from shadowmmu.runs.exported.player import AT, PAGES, STEPS_IN_PAGE, Store, device, direct, needs
from shadowmmu.runs.exported.steps import Do, Flag, Step

Registers = tuple[int, int, int, int]
_PLAYER = 4
"""Its memslot, behind those of the list."""


class NotExported(ValueError):
    """A list, or one of its operations, that no guest can do."""


@dataclass
class Exported:
    """`memory`: what the list finds there. `left_out`: operations that would end the VM, with the reason."""

    setup: Setup
    host: Host
    vendor: str
    vcpus: int = 1
    has_l2: bool = False
    steps: list[Step] = field(default_factory=list)
    memory: list[tuple[int, bytes]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Recording:
    """`guest` is as the player's own list is then. Raises NotExported for one that cannot be a player."""

    def __init__(self, setup: Setup) -> None:
        guest = guest_of(setup, import_module("shadowmmu").Vm)
        if not isinstance(guest, Guest):
            raise NotExported("its guest runs an L2 on extended page tables, which this machine's CPU does not have")
        if guest.nested:
            raise NotExported("its vCPUs run an L2 on nested tables, where the player cannot run")
        self.guest, self.number = guest, 0
        self.made = Exported(setup, host_of(guest), "AMD" if guest.features.amd else "Intel")
        self.made.memory = [(page * PAGE, guest.vm.read_guest(page * PAGE, PAGE)) for page in range(TABLES + 1, FRAMES)]
        self._host_steps: list[HostStep] = []

    def refuse(self, op: Op, why: str) -> NotExported:
        return NotExported(f"operation {self.number}, {Kind(op.kind).name.lower()} on vcpu {op.vcpu}, {why}")

    def levels(self, vcpu: int) -> int:
        return self.guest.oracle.vcpus[vcpu].mode.levels

    def expected(self, op: Op, gva: int) -> Expected:
        """Of an access that has not been done yet."""
        return expected(self.guest, op.vcpu, gva, op.b & 0xFF, bool(op.b & 0x100), op.c)

    def leads_nowhere(self, right: Expected) -> bool:
        """To no memory."""
        return right.gpa is not None and self.guest.slots.host(right.gpa) is None

    def add(self, do: Do, op: Op, **how: object) -> None:
        """A step of the operation."""
        self.made.steps.append(Step(do, op.vcpu, self.number, tell(op), **how))  # type: ignore[arg-type]

    def add_host(self, op: Op, *steps: HostStep) -> None:
        """What the host does of it."""
        at = len({step.at for step in self._host_steps}) + 1
        self._host_steps += (msgspec.structs.replace(step, at=at) for step in steps)
        self.made.steps.append(Step(Do.HOST, op.vcpu, at, tell(op)))

    def store(self, op: Op, store: Store) -> None:
        """An emulated store to guest-physical memory."""
        levels, (gpa, size, value) = self.levels(op.vcpu), store
        self.add(Do.EMULATED, op, size=size, flags=Flag.WRITE, address=direct(levels, gpa), value=value, device=device(levels, False))

    def warm(self, op: Op, address: int, flags: Flag) -> None:
        """No fault of the player's own is to be raced: what it needs is mapped before, and the next three steps lie in the same page."""
        self.add(Do.ACCESS, op, size=1, flags=flags | Flag.ANY, address=address)
        while len(self.made.steps) % STEPS_IN_PAGE > STEPS_IN_PAGE - 4:
            self.add(Do.ACCESS, op, size=1, flags=flags | Flag.ANY, address=address)

    def holds(self, store: Store) -> bool:
        return self.guest.slots.peek(store[0], store[1]) == store[2]

    def prepare(self, op: Op, registers: Registers) -> None:
        """What the player needs in the root that `op` loads; both sides get it."""
        cr0, cr3, cr4, efer = registers
        levels = paging(cr0, cr4, efer).levels
        for gpa, size, value in needs(levels, cr3) if levels else ():
            if not self.holds((gpa, size, value)):
                store = Op(Kind.POKE, op.vcpu, gpa, size, value)
                if self.guest.do(store) != "stored":
                    raise self.refuse(op, f"loads a root at {cr3:#x}, where there is no memory for the guest's own entry")
                self.store(store, (gpa, size, value))

    def end(self) -> Exported:
        """No step follows."""
        made = self.made
        made.vcpus = 1 + max((step.vcpu for step in made.steps), default=0)
        made.steps.append(Step(Do.END, 0, 0))
        host = made.host
        player = HostMemslot(slot=_PLAYER, page=AT // PAGE, pages=PAGES, host_page=host.memory_mib << 8)
        slots, mib = (*host.memslot, player), host.memory_mib + PAGES // 256
        made.host = msgspec.structs.replace(host, memory_mib=mib, memslot=slots, step=tuple(self._host_steps))
        return made
