# SPDX-License-Identifier: GPL-2.0-only
"""Invents the operations of an episode: mostly what a guest does, sometimes what only a hostile one would."""

from itertools import accumulate

from shadowmmu.check.fuzz.episode import Guest
from shadowmmu.check.fuzz.illegal import invent
from shadowmmu.check.fuzz.l2_author import L2Author
from shadowmmu.check.fuzz.operations import (
    DONE_AGAIN,
    GUEST,
    IMPLICIT,
    PAGE,
    TABLES,
    WRITES_TABLES,
    Kind,
    Op,
    Setup,
)
from shadowmmu.check.fuzz.sense import CR0_BASE, CR0_CD
from shadowmmu.check.fuzz.table_writer import ACCESSES, NORMAL
from shadowmmu.hardware.walk import (
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LME,
    EFER_NXE,
    FETCH,
    USER,
    WRITE,
)

PATIENCE = 16  # guest faults in a row (nearly) after which the tables are rebuilt


class GuestAuthor(L2Author):
    """Writes an episode."""

    def __init__(self, setup: Setup, guest: Guest) -> None:
        super().__init__(setup, guest)
        random = self.random
        self.last_l2: tuple[int, int, int, int] | None = None
        """Registers that L1 has run one without nested paging with."""
        self.faults = [0, 0]  # for each vCPU: guest faults less successes of late
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
                self.random.choices(self.choices, cum_weights=self.weights)[0](vcpu)
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

    # --- kinds of operations; each appends to `pending`

    def access(self, vcpu: int) -> None:
        """A load, store or fetch at a watched address; blind stores do not go into tables."""
        size = 1 << self.random.below(4)
        gva, how = self._gva(self._levels(vcpu)), self._how()
        if self.random.random() < 0.5:
            gva = self.random.choice(self.recent)
        self.recent[self.random.below(len(self.recent))] = gva
        if how & WRITE and self._levels(vcpu) and self._maps_table(vcpu, gva):
            how &= ~WRITE
        how |= self.random.choice((0,) * 14 + (DONE_AGAIN, DONE_AGAIN | WRITES_TABLES))
        self._add(Kind.ACCESS, vcpu, gva + self.random.below(PAGE // size) * size, how, size, self.random.getrandbits(8 * size))

    def table_store(self, vcpu: int) -> None:
        """A store into a table, through a watched address that maps one if there is any, then perhaps INVLPG."""
        random, paged = self.random, self._levels(vcpu)
        levels = paged or random.choice((2, 3, 4))
        gva = table = 0
        for _ in range(8 if paged else 0):
            gva = self._gva(paged)
            table = self._maps_table(vcpu, gva, WRITE)
            if table:
                break
        found = table or not paged
        table = table or random.randint(1, TABLES)
        target, level = self._table_slot(levels, table)
        size = 4 if levels == 2 else random.choice((8, 8, 8, 4))
        value = self._entry(levels, level) if random.random() < 0.9 else 0
        if not found:
            size = random.choice((size, size, size, 1, 2, 3, 5))
            target += random.choice((0, 0, 0, 0, 1, 2, 4))
            self._add(Kind.POKE, vcpu, target, size, value & (1 << 8 * size) - 1)
            return
        at, how = (gva if paged else table * PAGE) | target & 0xFFF, WRITE | (USER if random.random() < 0.3 else 0)
        if random.random() < 0.1:
            size = random.choice((1, 2, 3, 5, 6, 7, size))
            at = min(at + random.choice((0, 0, 1, 2, 3)), (at | 0xFFF) + 1 - size)
            self._add(Kind.EMULATED, vcpu, at, how, size, value & (1 << 8 * size) - 1)
        else:
            how |= random.choice((0, 0, 0, DONE_AGAIN))
            self._add(Kind.ACCESS, vcpu, at, how, size, value & (1 << 8 * size) - 1)
        if paged and random.random() < 0.4:
            self._add(Kind.INVLPG, vcpu, self._gva(paged))
        if paged and random.random() < 0.5:
            self._add(Kind.ACCESS, random.getrandbits(1), self._gva(min(paged, 3)), random.choice(ACCESSES), 8, 0)

    def edit(self, vcpu: int) -> None:
        """Change an entry on the path of an address in use, invalidate (mostly), and look again."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), size = self._in_use(vcpu), tlb.mode.entry_size
        if not trail:
            return
        used = trail[-1] if random.random() < 0.7 else random.choice(trail)
        entry = used.entry
        if random.random() < 0.5:
            entry = self._entry(tlb.mode.levels, tlb.mode.steps[used.step].level, hostile=0.3)
        else:
            bits = (1, 2, 2, 4, 4, 0x20, 0x40) + ((1 << 63,) if size == 8 and tlb.mode.nx else ())
            entry ^= random.choice(bits)
        self._write_entry(vcpu, used.pa, entry)
        fate = random.random()
        if fate < 0.6:
            self._add(Kind.INVLPG, vcpu, gva | random.getrandbits(12))
        elif fate < 0.75:
            self._add(Kind.CR3, vcpu, tlb.cr3)
        self._add(Kind.ACCESS, vcpu if random.random() < 0.7 else 1 - vcpu, gva, random.choice(ACCESSES), 8, random.getrandbits(64))

    def build(self, vcpu: int) -> None:
        """Make whole paths to some watched addresses, by emulated stores to guest-physical addresses, and load CR3."""
        tlb = self.guest.oracle.vcpus[vcpu]
        self.faults[vcpu] = 0
        for _ in range(3 if tlb.mode.levels else 0):
            self._path(vcpu, tlb.cr3, self._gva(tlb.mode.levels), tlb.mode.levels)
        if tlb.mode.levels:
            self._add(Kind.CR3, vcpu, tlb.cr3)

    def emulated(self, vcpu: int) -> None:
        """An instruction that the machine emulates, at an address in use or any other."""
        self._emulated(vcpu, self.random.choice(self.recent) if self.random.random() < 0.5 else self._gva(self._levels(vcpu)))

    def _emulated(self, vcpu: int, gva: int) -> None:
        """Of any size and alignment."""
        size = self.random.choice((1, 2, 3, 4, 5, 8, 8, 16))
        how = self._how() | (IMPLICIT if self.random.random() < 0.2 else 0)
        at = gva + self.random.below(PAGE - size + 1)
        if size == 4 and at & 7 > 4:
            at &= ~7  # the MMU takes four bytes for half of an entry of eight, wherever they begin
        self._add(Kind.EMULATED, vcpu, at, how, size, self.random.getrandbits(8 * min(size, 7)))

    def invlpg(self, vcpu: int) -> None:
        gva = self.random.choice(self.recent) if self.random.random() < 0.6 else self._gva(self._levels(vcpu))
        self._add(Kind.INVLPG, vcpu, gva | self.random.getrandbits(12))

    def cr3(self, vcpu: int) -> None:
        tlb = self.guest.oracle.vcpus[vcpu]
        cr3 = self.random.choice((tlb.cr3, self.guest.oracle.vcpus[1 - vcpu].cr3, self._root(), self._root()))
        if tlb.cr4 & CR4_PCIDE:
            cr3 = cr3 & ~0xFFF | self.random.below(3) | (self.random.random() < 0.7) << 63
        self._add(Kind.CR3, vcpu, cr3)

    def pcid(self, vcpu: int) -> None:
        """Process-context identifiers on or off; on only with PCID 0 in CR3 (SDM 4.10.1)."""
        tlb = self.guest.oracle.vcpus[vcpu]
        if tlb.mode.levels > 3 and not self.guest.nested:
            if not tlb.cr4 & CR4_PCIDE:
                self._add(Kind.CR3, vcpu, tlb.cr3 & ~0xFFF)
            self._add(Kind.CR4, vcpu, tlb.cr4 ^ CR4_PCIDE)
            self._add(Kind.ACCESS, vcpu, self.random.choice(self.recent), self.random.choice(ACCESSES), 8, 0)

    def toggle(self, vcpu: int) -> None:
        """One control bit that changes how entries are read or rights are judged, and at once accesses that it decides over."""
        tlb = self.guest.oracle.vcpus[vcpu]
        kind, bit = self.random.choice(
            (
                (Kind.CR0, CR0_WP),
                (Kind.CR0, CR0_WP),
                (Kind.CR0, CR0_CD),
                (Kind.CR4, CR4_SMEP),
                (Kind.CR4, CR4_SMAP),
                (Kind.CR4, CR4_PSE),
                (Kind.CR4, CR4_PGE),
                (Kind.EFER, EFER_NXE),
            )
        )
        self._add(kind, vcpu, (tlb.cr0 if kind == Kind.CR0 else tlb.cr4 if kind == Kind.CR4 else tlb.efer) ^ bit)
        for _ in range(self.random.below(3)):
            self._emulated(vcpu, self.random.choice(self.recent))
            self.access(vcpu)

    def _other_mode(self, vcpu: int) -> tuple[int, int, int, int]:
        """Registers of a mode (CR0, CR3, CR4, EFER), after some paths have been laid for it."""
        random = self.random
        levels = random.choice(tuple(self.guest.modes.values()))
        cr4 = sum(bit for bit in (CR4_PGE, CR4_SMEP, CR4_SMAP) if random.random() < 0.5) | (CR4_PSE if random.random() < 0.8 else 0)
        cr4 |= NORMAL[levels] & ~CR4_PSE if levels else random.choice((0, CR4_PAE))
        cr0 = CR0_BASE | (CR0_WP if random.random() < 0.7 else 0) | (CR0_PG if levels else 0)
        efer = (EFER_NXE if random.random() < 0.7 else 0) | (EFER_LME if levels > 3 else 0)
        root = self._root()
        if levels == 3 and random.random() < 0.9:
            for i in range(4):
                self._add(Kind.POKE, vcpu, root + 8 * i, 8, self._home(3, 2) << 12 | (random.random() < 0.8))
        for _ in range(3 if levels else 0):
            self._path(vcpu, root, self._gva(levels), levels)
        return cr0, root, cr4, efer

    def mode(self, vcpu: int) -> None:
        """Another paging mode."""
        random = self.random
        cr0, root, cr4, efer = self._other_mode(vcpu)
        pcid = efer & EFER_LME and not self.guest.nested and random.random() < 0.4
        for v in (0, 1) if random.random() < 0.7 else (vcpu,):
            self._add(Kind.MODE, v, cr0, root, cr4, efer)
            if pcid:
                self._add(Kind.CR3, v, root & ~0xFFF)
                self._add(Kind.CR4, v, cr4 | CR4_PCIDE)

    def smm(self, vcpu: int) -> None:
        """Into system-management mode for a while, or back."""
        self._add(Kind.SMM, vcpu, not self.guest.vm.vcpus[vcpu].smm)
        for v in (0, 1):
            self._add(Kind.ACCESS, v, self.random.choice(self.recent), self.random.choice(ACCESSES), 8, 0)

    def vmrun(self, vcpu: int) -> None:
        """Into an L2 of another mode, or of the same, on a table that L1 uses too or on another, or into the last one again; or back
        to L1. L1 or L2 then uses an address that the other may have used."""
        if self.guest.l1[vcpu]:
            self._add(Kind.VMEXIT, vcpu)
        else:
            if self.last_l2 is None or self.random.random() < 0.5:
                cr0, root, cr4, efer = self._other_mode(vcpu)
                own = self.guest.oracle.vcpus[vcpu].cr3 & ~0xFFF
                self.last_l2 = cr0, own if self.random.random() < 0.3 else root, cr4, efer
            self._add(Kind.VMRUN, vcpu, *self.last_l2)
        self._add(Kind.ACCESS, vcpu, self.random.choice(self.recent), self.random.choice(ACCESSES), 8, 0)

    def race(self, vcpu: int) -> None:
        """The other vCPU stores into an entry on the way of an access while its fault is served."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        gva = self._gva(self._levels(vcpu))
        trail = self._look(vcpu, gva) if tlb.mode.levels and gva in self.guest.reach[tlb.mode.levels] else []
        if not trail:
            return
        used, size = random.choice((trail[-1], random.choice(trail))), tlb.mode.entry_size
        entry = self._entry(tlb.mode.levels, tlb.mode.steps[used.step].level, hostile=0.3)
        if random.random() < 0.3:
            entry = used.entry ^ random.choice((1, 2, 4))
        if random.random() < 0.5:
            self._add(Kind.ZAP_ALL, vcpu)  # no table is protected yet, so that the store need not wait
        else:
            self._add(Kind.INVLPG, vcpu, gva)
        self._add(Kind.RACE, vcpu, gva, random.choice(ACCESSES) | random.getrandbits(1) << 12 | size << 16, used.pa, entry)
        self._add(Kind.ACCESS, random.getrandbits(1), gva, random.choice(ACCESSES), 8, 0)

    def illegal(self, vcpu: int) -> None:
        """A register write that is refused."""
        self._add(Kind.ILLEGAL, vcpu, *invent(self.random, self.guest.registers(vcpu), GUEST.maxphyaddr))
