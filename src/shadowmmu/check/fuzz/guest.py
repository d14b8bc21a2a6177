"""A VM in the middle of an episode: does operations and lets the oracle see them."""

from collections.abc import Callable
from random import Random
from typing import Any

from shadowmmu.check.fuzz.ops import AC, FRAMES, GUEST, HOST, LEVELS, LOW, MODES, PAGE, REACH, SLOTS, TABLES, WATCHED, Kind, Op, Setup
from shadowmmu.check.oracle import Oracle, Violation
from shadowmmu.hardware.cpu import Cpu, HostMemory
from shadowmmu.hardware.walk import CR0_PG, FETCH, USER, WRITE, paging

CR0_BASE = 0x31  # PE, ET, NE
EFER_LMA = 0x400
REGISTER = {"CR0": 0, "CR3": 1, "CR4": 2, "EFER": 3}


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
            memory_mib=0,
            vcpus=2,
            roots=setup.roots,
            maxphyaddr=GUEST.maxphyaddr,
            shadow_pages=random.choice((0, 24, 40, 64)),
            vendor="svm",
        )
        self._perform = (
            self._access,
            self._emulated,
            self._poke,
            self._invlpg,
            *(self._register,) * 4,
            self._mode,
            self._slot,
            self._swap,
            self._protect,
            self._zap_all,
            self._dirty,
        )
        self.memory = HostMemory(self.vm.host_regions())
        self.slots = Slots(self.vm, self.memory)
        for slot, (first, pages) in SLOTS.items():
            self.slots.set(slot, first, pages, 0)
        self.oracle = Oracle(self.slots, WATCHED, 2, GUEST)
        host = HOST._replace(amd=random.random() < 0.7)
        evict = random.choice((None, random))
        self.cpus = [Cpu(v, self.memory, host, self.oracle.vcpus[i], evict) for i, v in enumerate(self.vm.vcpus)]
        for page in range(TABLES + 1, FRAMES):  # data that differs everywhere; tables come later
            self.vm.write_guest(page * PAGE, (page * 0x1001).to_bytes(4, "little") * 1024)
        for vcpu, tlb in zip(self.vm.vcpus, self.oracle.vcpus, strict=True):
            vcpu.set_sregs(cr0=CR0_BASE, cr3=PAGE, cr4=0, efer=0)
            tlb.load(CR0_BASE, PAGE, 0, 0)

    def do(self, op: Op) -> str:
        """Perform `op`; raises a violation."""
        try:
            return self._perform[op.kind](op)
        except Exception as error:
            if type(error).__name__ != "TripleFault":
                raise
            tlb = self.oracle.vcpus[op.vcpu]
            tables = [tlb.cr3, *(p for p in tlb.pdptes if p & 1)] if tlb.mode.levels == 3 else [tlb.cr3]
            if all(self.slots.host(t & 0xFFFFFFFFFF000) is not None for t in tables):
                raise Violation(f"vcpu {op.vcpu}: triple fault, but cr3 {tlb.cr3:#x} points to memory") from error
            return "triple fault"

    def _address(self, op: Op) -> int:
        """The operation's address if the vCPU's mode can name it, else another, so that any list of operations makes sense."""
        levels = self.oracle.vcpus[op.vcpu].mode.levels
        if (op.a & ~0xFFF) in REACH[levels] or (not levels and not op.a >> 32):
            return op.a
        return LOW[(op.a >> 12) % len(LOW)] | op.a & 0xFFF

    def _access(self, op: Op) -> str:
        access, size, value = op[3:]
        gva = self._address(op)
        edits = self.oracle.edits
        result = self.cpus[op.vcpu].access(gva, access & 0xFF, bool(access & AC), size, value if access & WRITE else None)
        what = _word(access) + (" of an entry" if access & WRITE and self.oracle.edits != edits else "")
        return f"{what} {result.how.value}{' after ' + ','.join(result.exits[-2:]) if result.exits else ''}"

    def _emulated(self, op: Op) -> str:
        access, size, value = op[3:]
        gva = self._address(op)
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
        gva = self._address(op)
        self.vm.vcpus[op.vcpu].invlpg(gva)
        self.oracle.vcpus[op.vcpu].invlpg(gva)
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


def _word(access: int) -> str:
    return ("user " if access & USER else "") + ("write" if access & WRITE else "fetch" if access & FETCH else "read")
