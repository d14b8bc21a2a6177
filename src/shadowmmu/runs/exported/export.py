# SPDX-License-Identifier: GPL-2.0-only
"""Goes through a saved list, and makes steps of its operations.

The list is done by the fuzz's own VM, where its tables and registers are looked at; what is expected of an access comes of the tables
alone (`expected`), not of the engine.
"""

from __future__ import annotations

from contextlib import suppress

from shadowmmu.check.fuzz import Kind, Op, Setup
from shadowmmu.check.fuzz.operations import IMPLICIT, PAGE, TABLE_FRAMES, TABLES
from shadowmmu.check.fuzz.stage import REGISTER
from shadowmmu.engine.face.types import EngineError
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import CR0_PG, CR4_LA57, EFER_LME, FETCH, USER, WRITE
from shadowmmu.runs.exported.expected import expected
from shadowmmu.runs.exported.host_steps import LOGS, host_steps
from shadowmmu.runs.exported.player import device, needs
from shadowmmu.runs.exported.races import export_race
from shadowmmu.runs.exported.recording import Exported, NotExported, Recording, Registers
from shadowmmu.runs.exported.steps import NONE, Do, Flag, flags_of

_GP = 13 << 32
_SVME = 1 << 12
_REGISTERS = {Kind.CR0: Do.CR0, Kind.CR3: Do.CR3, Kind.CR4: Do.CR4, Kind.EFER: Do.EFER}
_BY_HOST = Kind.SLOT, Kind.SWAP, Kind.PROTECT, Kind.ZAP_ALL, Kind.DIRTY, Kind.OUTSIDE, Kind.HOST
_NOT_DONE = "not now", "nothing", "not logging"
_ENDS = "triple fault", "host fault", "no A or D, the host protects the table"
_NOT_A_GUESTS = {Kind.SMM: "goes into system-management mode", Kind.INSTRUCTION: "is one instruction at two addresses"}
"""What no instruction of the player does, and no step of its host."""


def export(setup: Setup, operations: list[Op]) -> Exported:
    """Raises NotExported."""
    export = _Export(setup)
    try:
        for op in operations:
            export.number += 1
            export.do(op)
        export.look_again()
    except (Violation, EngineError):
        pass  # the find, on an engine that has it: nothing comes behind it
    return export.end()


class _Export(Recording):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._used: dict[tuple[int, int], None] = {}
        """Of vCPUs the pages that they have accessed, the first to be used first."""

    def do(self, op: Op) -> None:
        """On both sides."""
        if op.kind in (Kind.ACCESS, Kind.EMULATED):
            self._access(op)
        elif op.kind == Kind.POKE:
            self._poke(op)
        elif op.kind == Kind.INVLPG:
            self.add(Do.INVLPG, op, address=self.guest._address(op.vcpu, op.a))
            self.guest.do(op)
        elif op.kind in _REGISTERS or op.kind == Kind.MODE:
            self._change_registers(op)
        elif op.kind == Kind.ILLEGAL:
            self._illegal(op)
        elif op.kind in _BY_HOST:
            self._by_host(op)
        elif op.kind in (Kind.RACE, Kind.MEANWHILE):
            export_race(self, op)
        elif op.kind in (Kind.VMRUN, Kind.VMEXIT):
            self._switch(op)
        elif self.guest.do(op) != "not now":
            raise self.refuse(op, _NOT_A_GUESTS.get(Kind(op.kind), "is none of a guest without nested tables"))
        self._look_at_roots(op)

    def _look_at_roots(self, op: Op) -> None:
        """The player is still mapped."""
        for tlb in self.guest.oracle.vcpus:
            if tlb.mode.levels == 3:
                mapped = tlb.pdptes[2] == needs(3, tlb.cr3)[0][2]
            else:
                mapped = not tlb.mode.levels or all(self.holds(store) for store in needs(tlb.mode.levels, tlb.cr3))
            if not mapped:
                raise self.refuse(op, "takes away the entry by which the guest's own code is mapped")

    def _access(self, op: Op) -> None:
        emulated, access = op.kind == Kind.EMULATED, op.b & 0xFF
        if emulated and op.b & IMPLICIT:
            raise self.refuse(op, "is the CPU's own, of no instruction")
        gva = self.guest._address(op.vcpu, op.a)
        right, levels = self.expected(op, gva), self.levels(op.vcpu)
        self._used[op.vcpu, gva & -PAGE] = None
        flags, value = flags_of(op.b), op.d & (1 << 8 * op.c) - 1
        if not access & (WRITE | FETCH) and right.value is not None:
            flags, value = flags | Flag.VALUE, right.value
        if right.want is None:
            flags |= Flag.ANY
        do = Do.EMULATED if emulated else Do.FETCH if access & FETCH else Do.ACCESS
        steps, ends = len(self.made.steps), "code where there is no memory" if access & FETCH and self.leads_nowhere(right) else ""
        if emulated and access & FETCH:
            ends = "an instruction that fetches by another"
        want = NONE if right.want is None else right.want
        self.add(do, op, size=op.c, flags=flags, address=gva, value=value, want=want, device=device(levels, bool(access & USER)))
        outcome = self.guest.do(op)
        if ends or outcome in _ENDS:
            del self.made.steps[steps:]
            self.made.left_out.append(f"operation {self.number}: {ends or outcome}")

    def _poke(self, op: Op) -> None:
        if self.guest.do(op) == "stored":
            self.store(op, (min(op.a, (op.a | 0xFFF) + 1 - op.b), op.b, op.c))

    def _change_registers(self, op: Op) -> None:
        before = self.guest.registers(op.vcpu)
        after = self._after(op, before)
        self.prepare(op, after)
        steps, svme = len(self.made.steps), _SVME if self.guest.l1[op.vcpu] else 0
        if op.kind == Kind.MODE or _long(before) != _long(after):
            cr0, cr3, cr4, efer = after
            self.add(Do.MODE, op, address=cr0, value=cr3 | cr4 << 64, device=(efer | svme, 0))
        else:
            self.add(_REGISTERS[Kind(op.kind)], op, address=op.a | (svme if op.kind == Kind.EFER else 0))
        outcome = self.guest.do(op)
        if outcome == "not now":
            del self.made.steps[steps:]
        elif "refused" in outcome:
            self.made.steps[-1] = self.made.steps[-1]._replace(want=_GP)

    def _after(self, op: Op, before: Registers) -> Registers:
        if op.kind == Kind.MODE:
            return op.a, op.b, op.c, op.d
        registers = list(before)
        registers[REGISTER[Kind(op.kind).name]] = op.a & ~(1 << 63)
        return registers[0], registers[1], registers[2], registers[3]

    def _switch(self, op: Op) -> None:
        """To an L2 without nested paging, which is the player again, or back."""
        steps = len(self.made.steps)
        if op.kind == Kind.VMEXIT:
            self.add(Do.VMEXIT, op, flags=Flag.ANY)
        elif self.guest.l1[op.vcpu] is None:
            self.prepare(op, (op.a, op.b, op.c, op.d))
            self.add(Do.VMRUN, op, address=op.a, value=op.b | op.c << 64, device=(op.d, 0), flags=Flag.ANY)
        outcome = self.guest.do(op)
        if outcome == "not now":
            del self.made.steps[steps:]
        elif "shut down" in outcome:
            raise self.refuse(op, "shuts L1 down")
        else:
            self.made.has_l2 = True

    def _illegal(self, op: Op) -> None:
        """#GP. A 32-bit guest has no register for the upper half of a value."""
        long, _ = _long(self.guest.registers(op.vcpu))
        if self.guest.do(op) == "refused" and (long or op.a == 3 or not op.b >> 32):
            self.add((Do.CR0, Do.CR3, Do.CR4, Do.EFER)[op.a & 3], op, address=op.b, want=_GP)

    def _by_host(self, op: Op) -> None:
        found = host_steps(self.guest, op)
        if self.guest.do(op) not in _NOT_DONE and found:
            self.add_host(op, *found)

    # --- behind the list

    def look_again(self) -> None:
        """What a guest would see of a translation that is older than it may be: each vCPU stores once more through what it has used, and an
        emulated instruction, for which the tables are walked, looks for what was stored. Then dirty logs are read."""
        for vcpu, gva in list(self._used):
            if self.guest._address(vcpu, gva) == gva:
                store = self._may_store(vcpu, gva)
                self._try(Op(Kind.ACCESS, vcpu, gva, WRITE if store else 0, 8, 0x5EED0000 + len(self.made.steps)))
                self._try(Op(Kind.EMULATED, vcpu, gva, 0, 8))
        for slot, (_, _, _, flags) in sorted(self.guest.slots.slots.items()):
            if flags & LOGS:
                self._try(Op(Kind.DIRTY, 0, slot))

    def _try(self, op: Op) -> None:
        with suppress(NotExported):
            self.do(op)

    def _may_store(self, vcpu: int, gva: int) -> bool:
        """The address leads to no table, of whose entries what is stored would be one."""
        gpa = expected(self.guest, vcpu, gva, WRITE, False, 8).gpa
        if gpa is None:
            return False
        frame = (self.guest.slots.host(gpa) or 0) >> 12
        spaces = (space for tlb in self.guest.oracle.vcpus for space in tlb.spaces.values())
        tables = {hpa >> 12 for space in spaces for hpa in space.entries()}
        return gpa >> 12 > TABLES and gpa >> 12 not in TABLE_FRAMES and frame not in tables


def _long(registers: Registers) -> tuple[bool, int]:
    """Whether it is long mode, and with five levels."""
    cr0, _, cr4, efer = registers
    long = bool(cr0 & CR0_PG and efer & EFER_LME)
    return long, cr4 & CR4_LA57 if long else 0
