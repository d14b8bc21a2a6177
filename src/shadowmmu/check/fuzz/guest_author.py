# SPDX-License-Identifier: GPL-2.0-only
"""Invents the operations of an episode: mostly what a guest does, sometimes what only a hostile one would."""

from itertools import accumulate

from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.check.fuzz.operations import Kind, Op, Setup
from shadowmmu.check.fuzz.register_author import RegisterAuthor
from shadowmmu.hardware.walk import FETCH, USER, WRITE

PATIENCE = 16  # guest faults in a row (nearly) after which the tables are rebuilt


class GuestAuthor(RegisterAuthor):
    """Writes an episode: draws kinds of operations, each a method of its own, and answers faults as a guest does."""

    def __init__(self, setup: Setup, guest: Guest) -> None:
        super().__init__(setup, guest)
        random = self.random
        weights = {
            self.access: 60.0,
            self.table_store: 8.0,
            self.edit: 12.0,
            self.emulated: 4.0,
            self.invlpg: 8.0,
            self.cr3: 4.0,
            self.toggle: 4.0,
            self.pcid: 1.5,
            self.dance: 4.0,
            self.shootdown: 4.0,
            self.mode: 0.8,
            self.slot: 1.5,
            self.swap: 1.0,
            self.protect: 0.5,
            self.zap_all: 0.5,
            self.dirty: 2.0,
            self.build: 0.5,
            self.race: 6.0,
            self.replaced: 3.0,
            self.outside: 2.0,
            self.changeling: 2.0,
            self.vanished: 2.0,
            self.aliases: 0.4,
            self.host: 0.8,
            self.illegal: 0.8,
            self.meanwhile: 1.5,
            self.redirected: 2.0,
            self.interrupted: 0.5,
            self.logged: 0.7,
            self.zeroed: 0.3,
            self.executed: 2.0,
            self.borrowed: 1.0,
            self.crowd: 0.2,
            self.reloaded: 1.5,
            self.lent: 2.0,
            self.twice: 0.7,
        }
        if guest.nested:
            weights |= {self.l2_mode: 1.5, self.l2_tables: 6.0, self.l2_register: 2.0, self.l2_judged: 6.0, self.beyond: 0.8}
            weights[self.keyed] = 3.0
        if guest.smm:
            weights[self.smm] = 4.0
            if random.random() < 0.5:
                self._add(Kind.SMM, 0, 1)
        if guest.amd and not guest.nested:
            weights[self.vmrun] = 3.0
        # Each episode has moods of its own: what it does often, and what hardly at all.
        weights = {what: weight * (1 if what == self.access else random.choice((0.1, 0.5, 1, 1, 4))) for what, weight in weights.items()}
        self.choices, self.weights = tuple(weights), tuple(accumulate(weights.values()))
        self.mode(0)

    def next(self) -> Op:
        """The next operation."""
        while not self.pending:
            vcpu = self.random.getrandbits(1)
            if self.faults[vcpu] > PATIENCE:
                self.build(vcpu)
            else:
                self.random.weighted(self.choices, self.weights)(vcpu)
        return self.pending.pop(0)

    def learn(self, op: Op, outcome: str) -> None:
        """What became of it: a guest fault is often handled, as a guest's own handler would."""
        if op.kind != Kind.ACCESS:
            return
        injected = "injected" in outcome
        if "faulted in L2" in outcome and not self.pending and self.random.random() < 0.7:
            self._l2_path(op.vcpu, op.a & ~0xFFF)
            self.pending.append(op)
        self.faults[op.vcpu] = max(0, self.faults[op.vcpu] + (1 if injected else -1))
        if injected and not self.pending and self.random.random() < 0.6:
            self._repair(op.vcpu, op)

    def _repair(self, vcpu: int, op: Op) -> None:
        """Make the entry that stopped the access let it through, as far as one entry can, and try again."""
        tlb, gva, access = self.guest.oracle.vcpus[vcpu], op.a & ~0xFFF, op.b
        if tlb.l2 is not None and tlb.prediction is not None:  # what L1 is told: an L2 physical address, perhaps of a table
            gva, access = tlb.prediction.address & ~0xFFF, tlb.prediction.access | USER | WRITE
        if not tlb.mode.levels or gva not in self.guest.reach[tlb.mode.levels]:
            return
        trail = self._look(vcpu, gva)
        if not trail:
            self._add(Kind.POKE, vcpu, (tlb.cr3 & 0xFFFFFFE0) + (gva >> 30 & 3) * 8, 8, self._home(3, 2) << 12 | 1)
            self._add(Kind.CR3, vcpu, tlb.cr3)
        elif trail[-1].address == 0:
            level = tlb.mode.steps[trail[-1].step].level
            self._write_entry(vcpu, trail[-1].pa, self._entry(tlb.mode.levels, level, hostile=0) | 1)
        else:
            need = access & (WRITE | USER)
            for used in trail:
                entry = (used.entry | need) & ~(1 << 63 if access & FETCH and tlb.mode.entry_size == 8 else 0)
                if entry != used.entry:
                    self._write_entry(vcpu, used.pa, entry)
                    break
            else:  # SMEP or SMAP
                self._write_entry(vcpu, trail[-1].pa, trail[-1].entry & ~USER)
            self._add(Kind.INVLPG, vcpu, gva)
        self.pending.append(op)
