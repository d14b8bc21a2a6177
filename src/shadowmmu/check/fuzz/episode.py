# SPDX-License-Identifier: GPL-2.0-only
"""A VM in the middle of an episode: does operations and lets the oracle see them."""

from collections.abc import Callable
from random import Random
from typing import Any

from shadowmmu.check.fuzz.operations import (
    AC,
    FRAMES,
    GUEST,
    HOST,
    LOW,
    NPT,
    NPT_REACH,
    PAGE,
    PAGING,
    REACH,
    SLOTS,
    TABLES,
    USER_MIB,
    WATCHED,
    Kind,
    Op,
    Setup,
)
from shadowmmu.check.fuzz.race import Race
from shadowmmu.check.fuzz.slots import DirectMap, Slots, Untold
from shadowmmu.check.oracle.agreement import Agreement
from shadowmmu.check.oracle.oracle import NotJudged, Oracle, VirtualTlb
from shadowmmu.engine.face.types import HostFault, TripleFault
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.hardware.cpu import Done, HostMemory, ModelCpu, Violation
from shadowmmu.hardware.two_dimensional import L2, access_l2
from shadowmmu.hardware.walk import ADDRESS, CR0_PG, EFER_LMA, EFER_LME, FETCH, USER, WRITE, BeyondNestedTables, features_of, paging

CR0_BASE = 0x31  # PE, ET, NE
L2_UNPAGED = CR0_BASE, 0, 0, 0  # CR0, CR3, CR4, EFER of an L2 on nested tables, as it begins
CR4_PCIDE = 0x20000
REGISTER = {"CR0": 0, "CR3": 1, "CR4": 2, "EFER": 3}


def _guest_cpu(seed: int) -> dict[str, Any]:
    """What the guest's CPUID says otherwise than the host's CPU."""
    random = Random(f"guest's CPU {seed}")
    return {"guest_vendor": random.choice(("host", "host", "svm", "vmx")), "pages_1g": random.random() < 0.7}


class Guest:
    """A VM in the middle of an episode. `do` performs one operation and returns its outcome in a word."""

    def __init__(self, setup: Setup, make_vm: Callable[..., Any]) -> None:
        self.setup = setup
        random = Random(f"guest {setup.seed}")
        self._choose_host(random)
        self._make_vm(random, make_vm)
        self._make_cpus(random)
        self._fill_memory()
        self.pdptes: list[tuple[int, ...]] = [(), ()]  # of L1's nested tables at the last VMRUN
        self.l1: list[tuple[int, int, int, int] | None] = [None, None]  # L1's registers while an L2 without nested paging runs
        self.l2 = [L2_UNPAGED, L2_UNPAGED]  # the registers of the L2 on nested tables
        self.untold = Untold(self.slots, self.oracle)
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
            self._vmrun,
            self._vmexit,
            self._l1_store,
            self._l2_mode,
            self._l2_register,
            self._race,
            self._outside,
        )
        for index in range(len(self.cpus)):
            self._start(index)

    def _choose_host(self, random: Random) -> None:
        """Its paging, and the modes that a guest may have there."""
        plain, npt = ([mode for mode in self.setup.modes if mode in group] for group in (PAGING, NPT))
        self.nested = bool(npt) and (not plain or random.random() < 0.4)
        """A host with NPT; both vCPUs run an L2, and only nested tables are shadowed. L1 edits them by emulated stores."""
        self.host_levels = random.choice((4, 5)) if self.nested and npt != ["npt-5-level"] else 5 if self.nested else 4
        offered = [mode for mode in (npt if self.nested else plain) if mode != "npt-5-level" or self.host_levels == 5]
        self.modes = {mode: (PAGING | NPT)[mode] for mode in offered}
        self.reach = NPT_REACH if self.nested else REACH
        self.amd = self.nested or random.random() < 0.7

    def _make_vm(self, random: Random, make_vm: Callable[..., Any]) -> None:
        self.vm = make_vm(
            memory_mib=0,
            user_mib=USER_MIB,
            vcpus=2,
            roots=self.setup.roots,
            kernel=self.setup.kernel,
            maxphyaddr=GUEST.maxphyaddr,
            host_maxphyaddr=HOST.maxphyaddr,
            shadow_pages=random.choice((0, 0, 40, 64)),
            vendor="svm" if self.amd else "vmx",
            nx_huge_pages=random.random() < 0.25,
            eager_page_split=random.random() < 0.5,
            **({"tdp": True, "host_levels": self.host_levels} if self.nested else _guest_cpu(self.setup.seed)),
        )
        self.manual_log = random.random() < 0.3
        """Reading a dirty log does not clear it."""
        if self.manual_log:
            self.vm.set_manual_dirty_log_protect(initially_set=random.random() < 0.5)
        self.features = features_of(self.vm.config)
        if random.random() < 0.5:
            self.vm.set_host_page_level(512 * PAGE, 512 * PAGE, 2)

    def _make_cpus(self, random: Random) -> None:
        """The CPUs that run on the tables of each vCPU, and the oracle that judges them."""
        self.memory = HostMemory(self.vm.host_regions())
        self.slots = Slots(self.vm, self.memory)
        for slot, (first, pages) in SLOTS.items():
            self.slots.set(slot, first, pages, 0)
        self.oracle = Oracle(self.slots, WATCHED, 2, self.features)
        evict = random.choice((None, random))
        host = HOST._replace(amd=self.amd)
        npt_levels = self.host_levels if self.nested else 0
        self.cpus = [ModelCpu(v, self.memory, host, self.oracle.vcpus[i], evict, npt_levels) for i, v in enumerate(self.vm.vcpus)]
        for i, cpu in enumerate(self.cpus):
            Agreement(cpu, f"vcpu {i}")

    def _fill_memory(self) -> None:
        """Data that differs everywhere; tables come later."""
        self.slots.find_zeroes((SLOTS[2][0] + SLOTS[2][1] - 2) * PAGE)
        for page in range(TABLES + 1, FRAMES):
            self.vm.write_guest(page * PAGE, (page * 0x1001).to_bytes(4, "little") * 1024)

    def _start(self, index: int) -> None:
        """One vCPU, without paging; on a host with NPT it runs an L2."""
        if self.nested:
            self._run_l2(index, CR0_BASE | CR0_PG, PAGE, 0, 0)
        else:
            self.vm.vcpus[index].set_sregs(cr0=CR0_BASE, cr3=PAGE, cr4=0, efer=0)
            self.oracle.vcpus[index].load(CR0_BASE, PAGE, 0, 0)

    def do(self, op: Op) -> str:
        """Perform `op`; raises a violation."""
        try:
            outcome = self._perform[op.kind](op)
            if self.slots.absent and self.slots.arrivals():
                self.oracle.memory_changed()
            return outcome
        except Violation:
            if not self._mark_refused(op):
                raise
            self._after_fault(op.vcpu)
            return "no A or D, the host protects the table"
        except BeyondNestedTables:
            return "beyond the nested tables"
        except NotJudged:
            return "no PDPTEs in L2"
        except TripleFault as error:
            return self._triple_fault(op, error)
        except HostFault:
            if not self.slots.protected:
                raise
            return "host fault"

    def _mark_refused(self, op: Op) -> bool:
        """A walk has to set A or D in a page that the host protects: Linux gives the guest a #PF instead."""
        prediction = self.oracle.vcpus[op.vcpu].prediction
        if prediction is None or op.kind not in (Kind.ACCESS, Kind.EMULATED):
            return False
        pages = {hpa >> 12 for hpa, *_ in prediction.entries}
        gfns = (gfn for first, count, _, _ in self.slots.slots.values() for gfn in range(first, first + count))
        return any(self.slots.host_page(gfn) in self.slots.protected and (self.slots.host(gfn * PAGE) or 0) >> 12 in pages for gfn in gfns)

    def _triple_fault(self, op: Op, error: Exception) -> str:
        """Right if the root, or if a bare root is filled a table of a present PDPTE, is in no slot."""
        tlb = self.oracle.vcpus[op.vcpu]
        tables = [tlb.cr3 & ADDRESS]
        if tlb.mode.levels == 3 and ROOT_DESIGNS[self.setup.roots].bare:
            at = tlb.cr3 & (ADDRESS | 0xFE0)
            pdptes = [self.slots.peek(at + 8 * i, 8) or 0 for i in range(4)] if self.nested else tlb.pdptes
            tables += [p & -PAGE if self.nested else p & ADDRESS for p in pdptes if p & 1]  # all of an NPT's PDPTE is taken
        if all(self.slots.host(t) is not None for t in tables):
            raise Violation(f"vcpu {op.vcpu}: triple fault, but cr3 {tlb.cr3:#x} points to memory") from error
        return "triple fault"

    def _address(self, op: Op) -> int:
        """The operation's address if the vCPU's mode can name it, else another, so that any list of operations makes sense."""
        tlb = self.oracle.vcpus[op.vcpu]
        levels = tlb.l2.mode.levels if tlb.l2 else tlb.mode.levels
        if (op.a & ~0xFFF) in (REACH if tlb.l2 else self.reach)[levels] or (not levels and not op.a >> 32):
            return op.a
        return LOW[(op.a >> 12) % len(LOW)] | op.a & 0xFFF

    def _access(self, op: Op) -> str:
        access, size, value = op[3:]
        access = self._as_seen(op.vcpu, access)
        self._reload_pdptes(op.vcpu)
        gva = self._address(op)
        edits, tlb = self.oracle.edits, self.oracle.vcpus[op.vcpu]
        how = gva, access & 0xFF, bool(access & AC), size, value if access & WRITE else None
        result = access_l2(self.cpus[op.vcpu], tlb.l2, tlb.mode.levels, *how) if tlb.l2 else self.cpus[op.vcpu].access(*how)
        if result.how == Done.INJECTED:
            self._after_fault(op.vcpu)
        what = _word(access) + (" of an entry" if access & WRITE and self.oracle.edits != edits else "")
        return f"{what} {result.how.value}{' after ' + ','.join(result.exits[-2:]) if result.exits else ''}"

    def _emulated(self, op: Op) -> str:
        access, size, value = op[3:]
        access = self._as_seen(op.vcpu, access)
        self._reload_pdptes(op.vcpu)
        gva = self._address(op)
        self.cpus[op.vcpu].enter()
        result = self.cpus[op.vcpu].emulate(gva, access & 0xFF, bool(access & AC), size, value if access & WRITE else None)
        if result.how == Done.INJECTED:
            self._after_fault(op.vcpu)
        return f"{_word(access)} {result.how.value}"

    def _reload_pdptes(self, index: int) -> None:
        """Bare roots take the PDPTEs of a PAE L1's nested tables at VMRUN; of a later change Linux knows nothing (H4)."""
        if self.nested and ROOT_DESIGNS[self.setup.roots].bare and self.oracle.vcpus[index].pdptes != self.pdptes[index]:
            self._run_l2(index, *self._registers(index))

    def _settle_pdptes(self) -> None:
        """L1 runs VMRUN before the next store if it has changed PDPTEs: with the old ones cached, tables would be found by a
        way that is no more, with entries that are new; the oracle knows whole walks only."""
        for index, tlb in enumerate(self.oracle.vcpus):
            if self.nested and tlb.pdptes != self.pdptes[index]:
                self._run_l2(index, *self._registers(index))

    def _as_seen(self, index: int, access: int) -> int:
        """Nested tables are walked for a user's access, whatever an L2 without paging does (APM 15.25.5)."""
        return access & ~AC | USER if self.nested and self.oracle.vcpus[index].l2 is None else access

    def _after_fault(self, index: int) -> None:
        """A fault of nested tables is a #VMEXIT: L1 sees it, and runs L2 again."""
        if self.nested:
            self._run_l2(index, *self._registers(index))

    def _registers(self, index: int) -> tuple[int, int, int, int]:
        tlb = self.oracle.vcpus[index]
        return tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer

    def _run_l2(self, index: int, cr0: int, ncr3: int, cr4: int, efer: int) -> None:
        """L1 takes these registers, whose paging mode its nested tables have, and runs L2 on the tables at `ncr3`."""
        vcpu = self.vm.vcpus[index]
        if vcpu.guest_mode:
            vcpu.nested_vmexit()
        if (vcpu.cr0, vcpu.cr4, vcpu.efer & ~EFER_LMA) != (cr0, cr4, efer):
            vcpu.set_sregs(cr0, 0, cr4, efer | (EFER_LMA if efer & EFER_LME else 0))
        if (vcpu.cr0, vcpu.cr4, vcpu.efer & ~EFER_LMA) != (cr0, cr4, efer):
            raise Violation(f"vcpu {index}: L1 cannot have cr0 {cr0:#x} cr4 {cr4:#x} efer {efer:#x}")
        if not vcpu.nested_vmrun(*self._with_lma(self.l2[index]), ncr3=ncr3):
            raise Violation(f"vcpu {index}: VMRUN with nested tables at {ncr3:#x} refused")
        self.oracle.vcpus[index].vmrun(cr0, ncr3, cr4, efer)
        self._see_l2(index)
        self.pdptes[index] = self.oracle.vcpus[index].pdptes

    def _with_lma(self, registers: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        cr0, cr3, cr4, efer = registers
        return cr0, cr3, cr4, efer | (EFER_LMA if efer & EFER_LME and cr0 & CR0_PG else 0)

    def _see_l2(self, index: int) -> None:
        """The CPU and the oracle walk L2's tables as its registers say."""
        cr0, cr3, cr4, efer = self.l2[index]
        self.oracle.vcpus[index].l2 = L2(paging(cr0, cr4, efer, self.features), cr3) if cr0 & CR0_PG else None

    def _l2_mode(self, op: Op) -> str:
        if not self.nested:
            return "not now"
        self.l2[op.vcpu] = op[2:]
        self._run_l2(op.vcpu, *self._registers(op.vcpu))
        return "unpaged" if self.oracle.vcpus[op.vcpu].l2 is None else f"{paging(op.a, op.c, op.d, self.features).levels}-level"

    def _l2_register(self, op: Op) -> str:
        """CR3 without an exit, as nested paging allows; the others through the engine. Nothing of the nested tables changes."""
        if not self.nested or self.oracle.vcpus[op.vcpu].l2 is None:
            return "not now"
        vcpu, registers = self.vm.vcpus[op.vcpu], list(self.l2[op.vcpu])
        if op.a == REGISTER["CR3"]:
            vcpu.cr3 = op.b
        elif not getattr(vcpu, ("set_cr0", "", "set_cr4", "set_efer")[op.a])(op.b):
            self.oracle.memory_changed()  # the PDPTEs that are refused have been read: A and D on the way to them
            return "refused"
        registers[op.a] = op.b
        self.l2[op.vcpu] = (registers[0], registers[1], registers[2], registers[3])
        self._see_l2(op.vcpu)
        self.oracle.memory_changed()  # PDPTEs of a PAE L2 may have been loaded: A and D on the way to them
        return "written"

    def _race(self, op: Op) -> str:
        """The store comes between walk and lock. It is one that nobody traps: of a table that is write-protected the storing vCPU
        would have to enter the MMU, whose lock is taken, so there the store comes when the access is over."""
        tlb, how, size = self.oracle.vcpus[op.vcpu], op.b & 0xFFF, op.b >> 16
        gpa, value = op.c & -size, op.d & (1 << 8 * size) - 1
        hpa, access = self.slots.host(gpa), Op(Kind.ACCESS, op.vcpu, op.a, how, 1, op.d & 0xFF)
        if hpa is None or not self.slots.writable(gpa) or not Race.shows(self.memory.read(hpa, size), value):
            return "not now"
        self.cpus[op.vcpu].enter()  # loading a root may protect tables, and is done before a fault
        if any(sp.gfn == gpa >> 12 and not (sp.unsync or sp.special or sp.direct) for sp in self.vm.shadow_pages()):
            outcome = self._access(access)
            self._poke(Op(Kind.POKE, 1 - op.vcpu, gpa, size, value))
            return f"waited, {outcome}"
        race = Race(tlb, self.memory, hpa, size)
        self.vm.arm_interleave(1 + (op.b >> 12 & 1), gpa, value, size)
        self.cpus[op.vcpu].observer = race
        try:
            outcome = self._access(access)
        finally:
            self.cpus[op.vcpu].observer = tlb
            self.vm.arm_interleave(0, 0, 0, 1)
        return f"won, {outcome}" if race.fired else "not reached"

    def _outside(self, op: Op) -> str:
        """Not into an NPT's PDPTEs: those are read again by each walk, and the oracle knows whole walks only (`_settle_pdptes`)."""
        gpa, size, value = op[2:5]
        gpa &= -size
        hpa = self.slots.host(gpa)
        pdptes = any(self.nested and tlb.mode.levels == 3 and (gpa ^ tlb.cr3) & ~0xFFF == 0 for tlb in self.oracle.vcpus)
        if hpa is None or pdptes or not self.slots.writable(gpa):
            return "not now"
        self.oracle.store_from_outside(hpa, size, lambda: self.memory.write(hpa, size, value & (1 << 8 * size) - 1))
        return "stored"

    def _l1_store(self, op: Op) -> str:
        """L2 is left, L1 stores through its own direct mapping, as it edits its tables, and runs L2 again."""
        if not self.nested:
            return "not now"
        gpa, size, value = op[2:5]
        registers = self._registers(op.vcpu)
        cpu, tlb = self.cpus[op.vcpu], self.oracle.vcpus[op.vcpu]
        self.vm.vcpus[op.vcpu].nested_vmexit()
        cpu.observer = DirectMap(self.slots, self.oracle)
        result = cpu.access(gpa & -size, WRITE | USER, False, size, value)
        cpu.observer = tlb
        self._run_l2(op.vcpu, *registers)
        return result.how.value

    def _poke(self, op: Op) -> str:
        self._settle_pdptes()
        gpa, size, value = op[2:5]
        gpa = min(gpa, (gpa | 0xFFF) + 1 - size)  # within one page
        if not self.vm.vcpus[op.vcpu].write_emulated(gpa, value.to_bytes(size, "little")):
            if self.slots.may_store(gpa):
                raise Violation(f"vcpu {op.vcpu}: emulated store to gpa {gpa:#x} refused, though it is memory")
            return "no memory"
        self.oracle.vcpus[op.vcpu].emulated_store(gpa, size)
        return "stored"

    def _invlpg(self, op: Op) -> str:
        gva = self._address(op)
        if self.nested:  # L1 flushes on VMRUN
            self._run_l2(op.vcpu, *self._registers(op.vcpu))
            return "flushed"
        self.vm.vcpus[op.vcpu].invlpg(gva)
        self.oracle.vcpus[op.vcpu].invlpg(gva)
        return "done"

    def _register(self, op: Op) -> str:
        outcome = self._write(op.vcpu, Kind(op.kind).name, op.a)
        return outcome + (" keeping translations" if op.kind == Kind.CR3 and op.a >> 63 else "")

    def _write(self, index: int, name: str, value: int) -> str:
        """Write a control register and tell the oracle."""
        vcpu, tlb = self.vm.vcpus[index], self.oracle.vcpus[index]
        registers = list(self._registers(index))
        registers[REGISTER[name]] = value
        if self.nested:
            self._run_l2(index, *registers)
            return "accepted"
        if name == "CR3" and not tlb.cr4 & CR4_PCIDE:
            value &= ~(1 << 63)
            registers[1] = value
        accepted = bool(getattr(vcpu, "set_" + name.lower())(value))
        cr0, cr3, cr4, efer = registers
        if not accepted and paging(cr0, cr4, efer, self.features).levels != 3:
            raise Violation(f"vcpu {index}: write of {value:#x} to {name} refused")
        tlb.load(cr0, cr3, cr4, efer, mov_cr3=name == "CR3", accepted=accepted)
        if (vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer & ~EFER_LMA) != (tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer):
            raise Violation(f"vcpu {index}: after a write of {value:#x} to {name} the guest sees other registers than it wrote")
        return "accepted" if accepted else "refused"

    def _mode(self, op: Op) -> str:
        cr0, cr3, cr4, efer = op[2:]
        name = next((mode for mode, levels in self.modes.items() if levels == paging(cr0, cr4, efer).levels), "nonpaging")
        if self.nested:
            self._run_l2(op.vcpu, cr0, cr3, cr4, efer)
            return name
        if self.oracle.vcpus[op.vcpu].cr4 & CR4_PCIDE:  # paging cannot be left with PCIDs on
            self._write(op.vcpu, "CR4", self.oracle.vcpus[op.vcpu].cr4 & ~CR4_PCIDE)
        self._write(op.vcpu, "CR0", cr0 & ~CR0_PG)
        self._write(op.vcpu, "CR4", cr4)
        self._write(op.vcpu, "EFER", efer)
        self._write(op.vcpu, "CR3", cr3)
        if not cr0 & CR0_PG:
            return "nonpaging"
        return f"{name} {self._write(op.vcpu, 'CR0', cr0)}"

    def _vmrun(self, op: Op) -> str:
        """L1 enters an L2 without nested paging: other registers, and nothing kept. An illegal CR3 comes back at once."""
        vcpu, tlb = self.vm.vcpus[op.vcpu], self.oracle.vcpus[op.vcpu]
        if self.nested or not self.amd or self.l1[op.vcpu]:
            return "not now"
        self.l1[op.vcpu] = self._registers(op.vcpu)
        cr0, cr3, cr4, efer = op[2:]
        accepted = vcpu.nested_vmrun(cr0, cr3, cr4, efer | (EFER_LMA if efer & EFER_LME and cr0 & CR0_PG else 0))
        self._switch(tlb, (cr0, cr3, cr4, efer), accepted)
        return "accepted" if accepted else f"refused, {self._vmexit(op)}"

    def _vmexit(self, op: Op) -> str:
        """Back to L1, which Linux 6.1 may give another CR4, when only one of L1 and L2 has paging (docs/kernel-quirks.md)."""
        vcpu, tlb, saved = self.vm.vcpus[op.vcpu], self.oracle.vcpus[op.vcpu], self.l1[op.vcpu]
        if saved is None:
            return "not now"
        mixed = bool((vcpu.cr0 ^ saved[0]) & CR0_PG)
        self.l1[op.vcpu] = None
        accepted = vcpu.nested_vmexit()
        if accepted and vcpu.cr4 != saved[2] and not mixed:
            raise Violation(f"vcpu {op.vcpu}: L1 gets CR4 {vcpu.cr4:#x} back, it had {saved[2]:#x}")
        self._switch(tlb, (saved[0], saved[1], vcpu.cr4, saved[3]), accepted)
        if accepted and not (vcpu.cr4 & CR4_PCIDE and not vcpu.efer & EFER_LMA):
            return "accepted"
        vcpu.set_sregs(cr0=CR0_BASE, cr3=PAGE, cr4=0, efer=0)
        self._switch(tlb, (CR0_BASE, PAGE, 0, 0), True)
        return "L1 shut down"

    def _switch(self, tlb: VirtualTlb, registers: tuple[int, int, int, int], accepted: bool) -> None:
        if not accepted and paging(registers[0], registers[2], registers[3], self.features).levels != 3:
            raise Violation(f"{tlb.name}: a switch between L1 and L2 was refused")
        tlb.load(*registers, mov_cr3=True, accepted=accepted)
        if accepted:
            tlb.flush()

    def _slot(self, op: Op) -> str:
        slot, first, pages, flags = op[2:]
        had = slot in self.slots.slots
        self.slots.set(slot, first, pages, flags)
        self._forget_dirty(slot)
        self.oracle.memory_changed()
        return "nothing" if not had and not pages else "deleted" if not pages else "changed" if had else "made"

    def _swap(self, op: Op) -> str:
        """Pages of zeroes stay away until they are touched, others come back with their content."""
        outside = {hpa >> 12 for hpa in self.oracle.unguarded.outside[4]}  # known by host address: these do not move
        pages = [
            g for g in range(op.a, op.a + op.b) if self.slots.may_store(g * PAGE) and (self.slots.host(g * PAGE) or 0) >> 12 not in outside
        ]
        for gfn in pages:
            gpa, host = gfn * PAGE, self.slots.host_page(gfn) or 0
            old = (self.slots.host(gpa) or 0) >> 12
            data = self.vm.read_host(old * PAGE, PAGE)
            self.vm.set_host_page_level((host & -512) * PAGE, 512 * PAGE, 1)
            self.vm.unmap_hva(host * PAGE, PAGE)
            self.slots.forget()
            dirty = old in self.oracle.dirty
            self.oracle.dirty.discard(old)
            if any(data):
                self.vm.write_guest(gpa, data)
                if dirty:
                    self.oracle.dirty.add((self.slots.host(gpa) or 0) >> 12)
            else:
                self.slots.absent.add(host)
        self.oracle.memory_changed()
        return "done" if pages else "nothing"

    def _protect(self, op: Op) -> str:
        host = self.slots.host_page(op.a)
        if host is None:
            return "nothing"
        self.vm.write_protect_hva(host * PAGE, PAGE, writable=bool(op.b))
        self.slots.protected.discard(host)
        if not op.b:
            self.slots.protected.add(host)
        self.slots.forget()
        self.oracle.memory_changed()
        return "writable" if op.b else "protected"

    def _zap_all(self, op: Op) -> str:
        self.vm.zap_all_fast()
        return "done"

    def _forget_dirty(self, slot: int) -> None:
        """A new log begins."""
        first, pages, _, _ = self.slots.slots.get(slot, (0, 0, 0, 0))
        self.oracle.dirty -= {(self.slots.host(gfn * PAGE) or 0) >> 12 for gfn in range(first, first + pages)}

    def _dirty(self, op: Op) -> str:
        if op.a not in self.slots.slots or not self.slots.slots[op.a][3] & 2:
            return "not logging"
        first, pages, _, _ = self.slots.slots[op.a]
        bitmap = int.from_bytes(self.vm.get_dirty_log(op.a), "little")
        for page in range(pages):
            if (self.slots.host((first + page) * PAGE) or 0) >> 12 in self.oracle.dirty and not bitmap >> page & 1:
                raise Violation(f"dirty log of slot {op.a} misses gfn {first + page:#x}, which was written")
        if self.manual_log:
            self.vm.clear_dirty_log(op.a, 0, pages, bitmap.to_bytes((pages + 63) // 64 * 8, "little"))
        self._forget_dirty(op.a)
        return "some" if bitmap else "none"


def _word(access: int) -> str:
    return ("user " if access & USER else "") + ("write" if access & WRITE else "fetch" if access & FETCH else "read")
