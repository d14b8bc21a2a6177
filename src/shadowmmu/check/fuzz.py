"""Random guests on the engine, judged by the virtual TLB oracle, the model CPU and the audit.

A run is cut into *episodes* of `EPISODE` operations. Each makes a new small VM with two vCPUs, few table pages that
are shared between levels, roots and modes, and few shadow pages, and is a pure function of its seed: episode k of
``fuzz(seed=s)`` is episode 0 of ``fuzz(seed=s + k)``, so a failure is reported and replayed by its own seed.

An *operation* (`Op`) is a tuple of plain integers that says everything: a recorded list can be replayed, cut and
shrunk. `Guest` does operations; `Author` invents them, looking at the guest's tables so that they hit something.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from random import Random
from typing import Any, NamedTuple

from shadowmmu.check.oracle import Oracle, Violation, VirtualTlb
from shadowmmu.hardware.cpu import Cpu, Done, HostMemory
from shadowmmu.hardware.walk import FETCH, USER, WRITE, Features, Translation, paging, walk

EPISODE = 3000
PAGE = 4096
MODES = ("nonpaging", "2-level", "pae", "4-level", "5-level")
LEVELS = (0, 2, 3, 4, 5)
AC = 1 << 8  # in the `access` of an operation: EFLAGS.AC is set
TABLES = 22  # guest pages 1.. that hold tables; the first ROOTS are roots
ROOTS = 6
FRAMES = 96  # guest pages in all, of two slots
SLOTS = {0: (0, 64), 1: (64, 32)}  # slot -> (first page, pages); host address = guest address
MOVED = 160  # where slot 1 is moved to, page
GUEST, HOST = Features(maxphyaddr=40), Features(maxphyaddr=46)
REGISTER = {"CR0": 0, "CR3": 1, "CR4": 2, "EFER": 3}

CR0_BASE, CR0_WP, CR0_PG = 0x31, 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE, CR4_LA57, CR4_SMEP, CR4_SMAP = 0x10, 0x20, 0x80, 0x1000, 1 << 20, 1 << 21
EFER_LME, EFER_LMA, EFER_NXE = 0x100, 0x400, 0x800

# Addresses that differ in every index of every mode, and pages beside each other
WATCHED = (
    *(base + page for base in (0, 0x200000, 0x400000, 0x40000000, 0xC0000000, 0xFFE00000) for page in (0, 0x1000, 0x7000)),
    0x1FF000,
    *(0x8000000000 + low for low in (0, 0x1000, 0x200000, 0x40000000)),
    *(0xFFFFFFFF80000000 + low for low in (0, 0x1000, 0x200000)),
    *(0x1000000000000 + low for low in (0, 0x1000)),
    *(0xFF00000000000000 + low for low in (0, 0x40001000)),
)


class Kind(IntEnum):
    """What an operation does; its four arguments in brackets."""

    ACCESS = 0  # by the CPU [gva, access, size, value]
    EMULATED = 1  # by an emulated instruction [gva, access, size, value]
    POKE = 2  # emulated store to a guest-physical address [gpa, size, value]
    INVLPG = 3  # [gva]
    CR0 = 4  # write of one register [value]
    CR3 = 5
    CR4 = 6
    EFER = 7
    MODE = 8  # paging off, CR4, EFER and CR3 written, paging on again [cr0, cr3, cr4, efer]
    SLOT = 9  # delete, or make with these flags [slot, first page, pages, readonly | log_dirty << 1]
    SWAP = 10  # the host moves a page to another frame [host page, pages]
    PROTECT = 11  # the host write-protects a page, as for KSM [host page]
    ZAP_ALL = 12  # zap_all_fast
    DIRTY = 13  # get_dirty_log, compared with what was written [slot]


class Op(NamedTuple):
    """One operation of one vCPU."""

    kind: int
    vcpu: int
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


class Setup(NamedTuple):
    """What an episode is besides its operations."""

    seed: int
    roots: str = "special"
    modes: tuple[str, ...] = MODES
    audit_every: int = 1


@dataclass
class Failure:
    """The first violation of a run, and how to see it again."""

    setup: Setup
    operations: list[Op]
    message: str

    @property
    def command(self) -> str:
        """The one command that reproduces it."""
        modes = "" if self.setup.modes == MODES else f" --modes {','.join(self.setup.modes)}"
        audit = "" if self.setup.audit_every == 1 else f" --audit-every {self.setup.audit_every}"
        return f"shadowmmu fuzz --seed {self.setup.seed} --operations {len(self.operations)} --roots {self.setup.roots}{modes}{audit}"


@dataclass
class Report:
    """What a run did. `coverage`: how often each kind of operation had each outcome."""

    operations: int = 0
    episodes: int = 0
    coverage: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


class Slots:
    """The memslots as the fuzzer set them: the oracle's view of what backs guest memory."""

    def __init__(self, vm: Any, memory: HostMemory) -> None:
        self.vm, self.read = vm, memory.read
        self.slots: dict[int, tuple[int, int, int, int]] = {}  # slot -> first page, pages, host page, flags
        self._cache: dict[int, tuple[int, bool] | None] = {}

    def set(self, slot: int, first: int, pages: int, flags: int) -> None:
        """Make, change or (no pages) delete a slot, in the VM too."""
        host = SLOTS[slot][0]
        self.vm.set_memslot(slot, first * PAGE, pages * PAGE, hva=host * PAGE, readonly=bool(flags & 1), log_dirty=bool(flags & 2))
        self.slots.pop(slot, None)
        if pages:
            self.slots[slot] = first, pages, host, flags
        self._cache.clear()

    def forget(self) -> None:
        """The host has changed its own mapping."""
        self._cache.clear()

    def _page(self, gfn: int) -> tuple[int, bool] | None:
        for first, pages, host, flags in self.slots.values():
            if first <= gfn < first + pages:
                hpa = self.vm.host_page((host + gfn - first) * PAGE)
                return None if hpa is None else (hpa, not flags & 1)
        return None

    def host(self, gpa: int) -> int | None:
        gfn = gpa >> 12
        if gfn not in self._cache:
            self._cache[gfn] = self._page(gfn)
        page = self._cache[gfn]
        return None if page is None else page[0] | gpa & 0xFFF

    def writable(self, gpa: int) -> bool:
        return self.host(gpa) is not None and bool((self._cache[gpa >> 12] or (0, False))[1])


class Guest:
    """A VM in the middle of an episode. `do` performs one operation and returns its outcome in a word."""

    def __init__(self, setup: Setup, make_vm: Callable[..., Any]) -> None:
        random = Random(f"guest {setup.seed}")
        self.setup = setup
        self.vm = make_vm(
            memory_mib=0, vcpus=2, roots=setup.roots, maxphyaddr=GUEST.maxphyaddr, shadow_pages=random.choice((0, 24, 40, 64)),
            vendor=random.choice(("svm", "svm", "vmx")),
        )  # fmt: skip
        self.memory = HostMemory(self.vm.host_regions())
        self.slots = Slots(self.vm, self.memory)
        for slot, (first, pages) in SLOTS.items():
            self.slots.set(slot, first, pages, 0)
        self.oracle = Oracle(self.slots, WATCHED, 2, GUEST)
        host = HOST._replace(amd=random.random() < 0.7)
        evict = random.choice((None, random))
        self.cpus = [Cpu(v, self.memory, host, self.oracle.vcpus[i], evict) for i, v in enumerate(self.vm.vcpus)]
        for page in range(FRAMES):  # data that differs everywhere; tables come later
            self.vm.write_guest(page * PAGE, (page * 0x1001).to_bytes(4, "little") * 1024 if page > TABLES else bytes(PAGE))
        for vcpu, tlb in zip(self.vm.vcpus, self.oracle.vcpus, strict=True):
            vcpu.set_sregs(cr0=CR0_BASE, cr3=PAGE, cr4=0, efer=0)
            tlb.load(CR0_BASE, PAGE, 0, 0)

    def do(self, op: Op) -> str:
        """Perform `op`; raises a violation."""
        kind = Kind(op.kind)
        try:
            return self._DO[kind](self, op)
        except Exception as error:
            if type(error).__name__ != "TripleFault":
                raise
            tlb = self.oracle.vcpus[op.vcpu]
            tables = [tlb.cr3, *(p for p in tlb.pdptes if p & 1)] if tlb.mode.levels == 3 else [tlb.cr3]
            if all(self.slots.host(t & 0xFFFFFFFFFF000) is not None for t in tables):
                raise Violation(f"vcpu {op.vcpu}: triple fault, but cr3 {tlb.cr3:#x} points to memory") from error
            return "triple fault"

    def _access(self, op: Op) -> str:
        gva, access, size, value = op[2:]
        result = self.cpus[op.vcpu].access(gva, access & 0xFF, bool(access & AC), size, value if access & WRITE else None)
        return f"{_word(access)} {result.how.value}{' after ' + ','.join(result.exits[-2:]) if result.exits else ''}"

    def _emulated(self, op: Op) -> str:
        gva, access, size, value = op[2:]
        self.cpus[op.vcpu].enter()
        result = self.cpus[op.vcpu].emulate(gva, access & 0xFF, bool(access & AC), size, value if access & WRITE else None)
        return f"{_word(access)} {result.how.value}"

    def _poke(self, op: Op) -> str:
        gpa, size, value = op[2:5]
        if not self.vm.vcpus[op.vcpu].write_emulated(gpa, value.to_bytes(size, "little")):
            if self.slots.writable(gpa):
                raise Violation(f"vcpu {op.vcpu}: emulated store to gpa {gpa:#x} refused, though it is memory")
            return "no memory"
        self.oracle.vcpus[op.vcpu].emulated_store(gpa, size)
        return "stored"

    def _invlpg(self, op: Op) -> str:
        self.vm.vcpus[op.vcpu].invlpg(op.a)
        self.oracle.vcpus[op.vcpu].invlpg(op.a)
        return "done"

    def _register(self, op: Op) -> str:
        return self._write(op.vcpu, Kind(op.kind).name, op.a)

    def _write(self, index: int, name: str, value: int) -> str:
        """Write a control register and tell the oracle."""
        vcpu, tlb = self.vm.vcpus[index], self.oracle.vcpus[index]
        registers = [tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer]
        registers[REGISTER[name]] = value
        accepted = bool(getattr(vcpu, "set_" + name.lower())(value))
        cr0, cr3, cr4, efer = registers
        if not accepted and paging(cr0, cr4, efer, GUEST).levels != 3:
            raise Violation(f"vcpu {index}: write of {value:#x} to {name} refused")
        tlb.load(cr0, cr3, cr4, efer, mov_cr3=name == "CR3", accepted=accepted)
        if (vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer & ~EFER_LMA) != (tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer):
            raise Violation(f"vcpu {index}: after a write of {value:#x} to {name} the guest sees other registers than it wrote")
        return "accepted" if accepted else "refused"

    def _mode(self, op: Op) -> str:
        cr0, cr3, cr4, efer = op[2:]
        self._write(op.vcpu, "CR0", cr0 & ~CR0_PG)
        self._write(op.vcpu, "CR4", cr4)
        self._write(op.vcpu, "EFER", efer)
        self._write(op.vcpu, "CR3", cr3)
        if not cr0 & CR0_PG:
            return "nonpaging"
        return f"{MODES[LEVELS.index(paging(cr0, cr4, efer).levels)]} {self._write(op.vcpu, 'CR0', cr0)}"

    def _slot(self, op: Op) -> str:
        slot, first, pages, flags = op[2:]
        had = slot in self.slots.slots
        self.slots.set(slot, first, pages, flags)
        self._forget_dirty(slot)
        self.oracle.memory_changed()
        return "nothing" if not had and not pages else "deleted" if not pages else "changed" if had else "made"

    def _swap(self, op: Op) -> str:
        first, pages = op.a, op.b
        old = [self.vm.host_page((first + i) * PAGE) for i in range(pages)]
        data = [self.vm.read_host(hpa, PAGE) for hpa in old]
        self.vm.unmap_hva(first * PAGE, pages * PAGE)
        for i, page in enumerate(data):
            self.vm.write_host(self.vm.host_page((first + i) * PAGE), page)
        self.slots.forget()
        for i, hpa in enumerate(old):
            if hpa >> 12 in self.oracle.dirty:
                self.oracle.dirty.discard(hpa >> 12)
                self.oracle.dirty.add(self.vm.host_page((first + i) * PAGE) >> 12)
        self.oracle.memory_changed()
        return "done"

    def _protect(self, op: Op) -> str:
        self.vm.write_protect_hva(op.a * PAGE, PAGE)
        self.slots.forget()
        return "done"

    def _zap_all(self, op: Op) -> str:
        self.vm.zap_all_fast()
        return "done"

    def _forget_dirty(self, slot: int) -> None:
        host, pages = SLOTS[slot]
        for page in range(pages):
            hpa = self.vm.host_page((host + page) * PAGE)
            self.oracle.dirty.discard(hpa >> 12 if hpa is not None else -1)

    def _dirty(self, op: Op) -> str:
        if op.a not in self.slots.slots or not self.slots.slots[op.a][3] & 2:
            return "not logging"
        first, pages, host, _ = self.slots.slots[op.a]
        bitmap = int.from_bytes(self.vm.get_dirty_log(op.a), "little")
        for page in range(pages):
            hpa = self.vm.host_page((host + page) * PAGE)
            if hpa is not None and hpa >> 12 in self.oracle.dirty and not bitmap >> page & 1:
                raise Violation(f"dirty log of slot {op.a} misses gfn {first + page:#x}, which was written")
        self._forget_dirty(op.a)
        return "some" if bitmap else "none"

    _DO = {
        Kind.ACCESS: _access, Kind.EMULATED: _emulated, Kind.POKE: _poke, Kind.INVLPG: _invlpg, Kind.CR0: _register, Kind.CR3: _register,
        Kind.CR4: _register, Kind.EFER: _register, Kind.MODE: _mode, Kind.SLOT: _slot, Kind.SWAP: _swap, Kind.PROTECT: _protect,
        Kind.ZAP_ALL: _zap_all, Kind.DIRTY: _dirty,
    }  # fmt: skip


def _word(access: int) -> str:
    return ("user " if access & USER else "") + ("write" if access & WRITE else "fetch" if access & FETCH else "read")


class Author:
    """Invents the operations of an episode. Looks at guest memory only through the oracle's eyes."""

    def __init__(self, setup: Setup, guest: Guest) -> None:
        self.random = Random(f"author {setup.seed}")
        self.guest, self.setup = guest, setup
        self.pending: list[Op] = []
        self.faults = [0, 0]  # how many of the last accesses of each vCPU ended in a guest fault
        weights = {
            self.access: 60, self.table_store: 14, self.emulated: 4, self.invlpg: 8, self.cr3: 4, self.toggle: 3, self.mode: 0.6, self.slot: 0.5,
            self.swap: 0.7, self.protect: 0.4, self.zap_all: 0.2, self.dirty: 0.5, self.build: 2,
        }  # fmt: skip
        mood = self.random.choice((self.access, self.table_store, self.emulated, self.cr3, self.toggle, self.mode, self.slot, self.swap))
        weights[mood] *= 4
        self.choices, self.weights = tuple(weights), tuple(weights.values())
        self.pending = [self._mode_op(v) for v in (0, 1)]

    def next(self) -> Op:
        """The next operation."""
        while not self.pending:
            vcpu = self.random.getrandbits(1)
            if self.faults[vcpu] > 12:
                self.faults[vcpu] = 0
                self.build(vcpu)
            else:
                self.random.choices(self.choices, self.weights)[0](vcpu)
        return self.pending.pop(0)

    def learn(self, op: Op, outcome: str) -> None:
        """What became of it: a guest that faults all the time gets its tables rebuilt."""
        if op.kind == Kind.ACCESS:
            self.faults[op.vcpu] = self.faults[op.vcpu] + 1 if "injected" in outcome else max(0, self.faults[op.vcpu] - 1)

    # --- addresses and entries

    def _gva(self, vcpu: int) -> int:
        """A watched address that is canonical in the vCPU's mode; without paging anything, mostly memory."""
        random, levels = self.random, self.guest.oracle.vcpus[vcpu].mode.levels
        if not levels:
            return random.choice((random.randrange(FRAMES) << 12, random.choice(WATCHED[:19])))
        if levels < 4:
            return random.choice(WATCHED[:19])
        return random.choice(WATCHED if levels == 5 else WATCHED[:26])

    def _look(self, vcpu: int, gva: int) -> list[Any]:
        """The entries of a walk of the present tables."""
        tlb, slots = self.guest.oracle.vcpus[vcpu], self.guest.slots

        def read(gpa: int, size: int) -> int | None:
            hpa = slots.host(gpa)
            return None if hpa is None else slots.read(hpa, size)

        trail: list[Any] = []
        walk(tlb.mode, read, tlb.cr3, gva, pdptes=tlb.pdptes, trail=trail)
        return trail

    def _entry(self, levels: int, level: int) -> int:
        """An entry for a table of `level`: mostly sensible, sometimes hostile."""
        random = self.random
        leaf = level == 1 or (random.random() < 0.15 and level == 2)
        if leaf:
            frame = random.randrange(FRAMES) if random.random() < 0.6 else random.randint(1, TABLES)
        else:
            homes = [t for t in range(ROOTS + 1, TABLES + 1) if t % max(levels - 1, 1) == level % max(levels - 1, 1)]
            frame = random.choice(homes) if random.random() < 0.85 else random.randint(1, TABLES)
        if random.random() < 0.03:
            frame = random.choice((FRAMES + 3, MOVED + 2, 0x80000, 0xFFFFF))
        if levels == 3 and level == 3:
            return frame << 12 | (random.random() < 0.95) | (random.random() < 0.01) << 1
        chances = ((0x1, 0.94), (0x2, 0.8), (0x4, 0.8), (0x20, 0.7), (0x40, 0.5), (0x100, 0.1 * leaf))
        entry = frame << 12 | sum(bit for bit, chance in chances if random.random() < chance)
        if leaf and level == 2:
            entry = entry & ~0x3FF000 | 0x80 | (random.getrandbits(16) << 12 & 0x3FF000 if random.random() < 0.05 else 0)
        elif random.random() < 0.01:
            entry |= 0x80
        if levels > 2:
            entry |= (random.random() < 0.08) << 63 | (random.random() < 0.02) << random.randrange(40, 52)
        return entry

    def _table_slot(self, levels: int, table: int) -> tuple[int, int]:
        """(address, level) of an entry of table page `table` that some watched address uses."""
        steps = paging(CR0_PG, CR4_PAE if levels != 2 else CR4_PSE, EFER_LME if levels > 3 else 0, GUEST).steps
        gva = self.random.choice(WATCHED[:19] if levels < 4 else WATCHED)
        if levels == 3 and table <= ROOTS:
            return table * PAGE + self.random.randrange(4) * 8, 3
        step = self.random.choice(steps) if table > ROOTS else steps[0]
        home = [s for s in steps if table % max(levels - 1, 1) == s.level % max(levels - 1, 1)]
        if table > ROOTS and home and self.random.random() < 0.8:
            step = home[0]
        return table * PAGE + (gva >> step.shift & step.mask) * (4 if levels == 2 else 8), step.level

    # --- kinds of operations; each appends to `pending`

    def _add(self, kind: Kind, vcpu: int, *arguments: int) -> None:
        self.pending.append(Op(kind, vcpu, *arguments))

    def _how(self) -> int:
        return self.random.choice((0, 0, WRITE, WRITE, USER, USER, USER | WRITE, USER | WRITE, FETCH, USER | FETCH)) | (
            AC if self.random.random() < 0.2 else 0
        )

    def access(self, vcpu: int) -> None:
        """A load, store or fetch at a watched address, mostly not into a table."""
        size = 1 << self.random.randrange(4)
        gva, how = self._gva(vcpu), self._how()
        trail = self._look(vcpu, gva)
        if how & WRITE and trail and trail[-1].address >> 12 <= TABLES:
            how &= ~WRITE
        self._add(Kind.ACCESS, vcpu, gva + self.random.randrange(PAGE // size) * size, how, size, self.random.getrandbits(8 * size))

    def table_store(self, vcpu: int) -> None:
        """A store into a table, through a watched address that maps one if there is any, then perhaps INVLPG."""
        random, levels = self.random, self.guest.oracle.vcpus[vcpu].mode.levels
        table = random.randint(1, TABLES)
        target, level = self._table_slot(levels or 3, table)
        value = self._entry(levels or 3, level) if random.random() < 0.9 else 0
        size = 4 if levels == 2 else random.choice((8, 8, 8, 4))
        value &= (1 << 8 * size) - 1
        gva = next((g for g in (self._gva(vcpu) for _ in range(8)) if self._maps(vcpu, g, table)), None)
        if not levels:
            gva = table * PAGE
        if gva is None:
            if random.random() < 0.3:
                shift = random.choice((0, 0, 0, 1, 2, 3))
                size = random.choice((size, size, 1, 2, 3, 5))
                self._add(Kind.POKE, vcpu, target + shift, size, value & (1 << 8 * size) - 1)
            return
        kind, how = Kind.ACCESS, WRITE | (USER if random.random() < 0.3 else 0)
        at = gva | target & 0xFFF & -size
        if random.random() < 0.1:
            kind, size = Kind.EMULATED, random.choice((1, 2, 3, 5, 6, 7, size))
            at = gva | min(target & 0xFFF, PAGE - size)
        self._add(kind, vcpu, at, how, size, value & (1 << 8 * size) - 1)
        if random.random() < 0.4:
            self._add(Kind.INVLPG, vcpu, self._gva(vcpu))

    def _maps(self, vcpu: int, gva: int, table: int) -> bool:
        trail = self._look(vcpu, gva)
        return bool(trail) and trail[-1].address >> 12 == table and trail[-1].step == len(self.guest.oracle.vcpus[vcpu].mode.steps) - 1

    def build(self, vcpu: int) -> None:
        """Make a whole path to a watched address, by emulated stores to guest-physical addresses."""
        tlb = self.guest.oracle.vcpus[vcpu]
        if not tlb.mode.levels:
            return
        for _ in range(3):
            gva, levels = self._gva(vcpu), tlb.mode.levels
            table = tlb.cr3 >> 12
            if levels == 3:
                home = self.random.randint(ROOTS + 1, TABLES)
                self._add(Kind.POKE, vcpu, (tlb.cr3 & ~31) + (gva >> 30 & 3) * 8, 8, home << 12 | 1)
                table = home
            for step in tlb.mode.steps:
                entry = self._entry(levels, step.level)
                entry = entry & (1 << 40) - 1 & ~0x80 | 0x27
                if step.level == 1 and self.random.random() < 0.4:
                    entry = entry & 0xFFF | self.random.randint(1, TABLES) << 12
                if entry >> 12 >= FRAMES:
                    entry = entry & 0xFFF | (ROOTS + 1) << 12
                size = tlb.mode.entry_size
                self._add(Kind.POKE, vcpu, table * PAGE + (gva >> step.shift & step.mask) * size, size, entry)
                table = entry >> 12
        self._add(Kind.CR3, vcpu, tlb.cr3)

    def emulated(self, vcpu: int) -> None:
        size = self.random.choice((1, 2, 3, 4, 5, 8, 8, 16))
        self._add(Kind.EMULATED, vcpu, self._gva(vcpu) + self.random.randrange(PAGE - size + 1), self._how(), size, self.random.getrandbits(8 * min(size, 7)))

    def invlpg(self, vcpu: int) -> None:
        self._add(Kind.INVLPG, vcpu, self._gva(vcpu) | self.random.getrandbits(12))

    def cr3(self, vcpu: int) -> None:
        tlb = self.guest.oracle.vcpus[vcpu]
        self._add(Kind.CR3, vcpu, tlb.cr3 if self.random.random() < 0.3 else self._root())

    def _root(self) -> int:
        return self.random.randint(1, ROOTS) * PAGE | (0x20 if self.random.random() < 0.05 else 0)

    def toggle(self, vcpu: int) -> None:
        """One control bit that changes how entries are read or rights are judged."""
        tlb = self.guest.oracle.vcpus[vcpu]
        bit = self.random.choice((CR0_WP, CR0_WP, CR4_SMEP, CR4_SMAP, CR4_PSE, CR4_PGE, EFER_NXE))
        if bit == CR0_WP:
            self._add(Kind.CR0, vcpu, tlb.cr0 ^ bit)
        elif bit == EFER_NXE:
            self._add(Kind.EFER, vcpu, tlb.efer ^ bit)
        else:
            self._add(Kind.CR4, vcpu, tlb.cr4 ^ bit)

    def _mode_op(self, vcpu: int) -> Op:
        random = self.random
        levels = LEVELS[MODES.index(random.choice(self.setup.modes))]
        cr4 = sum(bit for bit in (CR4_PGE, CR4_SMEP, CR4_SMAP) if random.random() < 0.5) | (CR4_PSE if random.random() < 0.8 else 0)
        cr4 |= CR4_PAE if levels > 2 or (not levels and random.random() < 0.5) else 0
        cr4 |= CR4_LA57 if levels == 5 else 0
        cr0 = CR0_BASE | (CR0_WP if random.random() < 0.7 else 0) | (CR0_PG if levels else 0)
        efer = (EFER_NXE if random.random() < 0.7 else 0) | (EFER_LME if levels > 3 else 0)
        return Op(Kind.MODE, vcpu, cr0, self._root(), cr4, efer)

    def mode(self, vcpu: int) -> None:
        self.pending.append(self._mode_op(vcpu))
        self.faults[vcpu] = 13

    def slot(self, vcpu: int) -> None:
        """Delete and make again, move, or change the flags of a slot; a table slot is not away for long."""
        random = self.random
        slot = random.choice((0, 1, 1))
        first, pages = SLOTS[slot]
        flags = random.choice((0, 0, 0, 1, 2, 2))
        present = self.guest.slots.slots.get(slot)
        if present is None or (random.random() < 0.6 and present[0] == first):
            if present is not None and (flags ^ present[3]) & 1:
                self._add(Kind.SLOT, vcpu, slot, first, 0, 0)
            self._add(Kind.SLOT, vcpu, slot, first, pages, flags)
            return
        self._add(Kind.SLOT, vcpu, slot, first, 0, 0)
        for _ in range(random.randrange(4)):
            self.access(random.getrandbits(1))
        if slot == 0 or random.random() < 0.7:
            self._add(Kind.SLOT, vcpu, slot, random.choice((first, MOVED)) if slot else first, pages, flags)

    def swap(self, vcpu: int) -> None:
        self._add(Kind.SWAP, vcpu, self.random.randrange(FRAMES - 4), self.random.choice((1, 1, 1, 4)))

    def protect(self, vcpu: int) -> None:
        self._add(Kind.PROTECT, vcpu, self.random.randrange(FRAMES))

    def zap_all(self, vcpu: int) -> None:
        self._add(Kind.ZAP_ALL, vcpu)

    def dirty(self, vcpu: int) -> None:
        self._add(Kind.DIRTY, vcpu, self.random.getrandbits(1))


# --- runs


def _engine() -> Callable[..., Any]:
    from shadowmmu import Vm

    return Vm


def _audit() -> Callable[[Any], Sequence[Any]]:
    try:
        from shadowmmu.check.audit import audit
    except ImportError:
        return lambda vm: ()
    return audit


class _Episode:
    """One guest, its audit, and what has been done so far."""

    def __init__(self, setup: Setup, report: Report, make_vm: Callable[..., Any] | None) -> None:
        self.setup, self.report, self.done = setup, report, []  # type: Setup, Report, list[Op]
        self.guest = Guest(setup, make_vm or _engine())
        self.audit = _audit()

    def step(self, op: Op) -> str | None:
        """Do `op`, then audit. None: a violation, which is in the report now."""
        self.done.append(op)
        self.report.operations += 1
        try:
            outcome = self.guest.do(op)
            self.report.coverage[f"{Kind(op.kind).name.lower()} {outcome}"] += 1
            if self.setup.audit_every and len(self.done) % self.setup.audit_every == 0:
                broken = self.audit(self.guest.vm)
                if broken:
                    raise Violation(f"audit: {broken[0]}" + (f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""))
        except Exception as error:
            message = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            self.report.failure = Failure(self.setup, self.done, f"operation {len(self.done)}, {describe(op)}: {message}")
            return None
        return outcome


def describe(op: Op) -> str:
    """An operation in words, one line."""
    arguments = " ".join(f"{value:#x}" for value in op[2:])
    return f"{Kind(op.kind).name.lower()} on vcpu {op.vcpu} [{arguments}]"


def fuzz(
    seed: int = 0,
    operations: int = 10_000,
    modes: Sequence[str] = MODES,
    roots: str = "special",
    audit_every: int = 1,
    on_progress: Callable[[Report], None] | None = None,
    *,
    make_vm: Callable[..., Any] | None = None,
) -> Report:
    """Do `operations` random operations in episodes; stops at the first violation. A pure function of its arguments."""
    report = Report()
    while report.operations < operations and report.ok:
        setup = Setup(seed + report.episodes, roots, tuple(modes), audit_every)
        episode = _Episode(setup, report, make_vm)
        author = Author(setup, episode.guest)
        for _ in range(min(EPISODE, operations - report.operations)):
            op = author.next()
            outcome = episode.step(op)
            if outcome is None:
                break
            author.learn(op, outcome)
        report.episodes += 1
        report.counters.update(episode.guest.vm.counters())
        if on_progress is not None:
            on_progress(report)
    return report


def replay(setup: Setup, ops: Iterable[Op], make_vm: Callable[..., Any] | None = None) -> Failure | None:
    """Do recorded operations on a new VM: the failure, if there is one."""
    report = Report()
    episode = _Episode(setup, report, make_vm)
    for op in ops:
        if episode.step(op) is None:
            break
    return report.failure


def shrink(failure: Failure, runs: int = 400, make_vm: Callable[..., Any] | None = None) -> Failure:
    """Delta debugging: leave out runs of operations while something still fails, in at most `runs` replays."""
    best, width = failure, max(1, len(failure.operations) // 2)
    while runs > 0:
        start, shorter = 0, False
        while start < len(best.operations) and runs > 0:
            ops = best.operations[:start] + best.operations[start + width :]
            runs -= 1
            found = replay(failure.setup, ops, make_vm)
            if found is not None and len(found.operations) < len(best.operations):
                best, shorter = found, True
            else:
                start += width
        if width == 1 and not shorter:
            break
        width = max(1, width // 2)
    return best
