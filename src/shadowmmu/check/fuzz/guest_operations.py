# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What a guest does: accesses, stores by its emulator, INVLPG, control registers."""

from shadowmmu.check.fuzz.illegal import is_refused
from shadowmmu.check.fuzz.invalidated import stale_entry
from shadowmmu.check.fuzz.l2_operations import L2Operations
from shadowmmu.check.fuzz.operations import (
    AC,
    DONE_AGAIN,
    GUEST,
    IMPLICIT,
    LOW,
    REACH,
    WRITES_TABLES,
    Kind,
    Op,
)
from shadowmmu.check.fuzz.stage import REGISTER
from shadowmmu.hardware.cpu import Done
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.two_dimensional import access_l2
from shadowmmu.hardware.walk import CR0_PG, CR0_WP, CR4_PCIDE, EFER_LMA, FETCH, USER, WRITE, paging

TIMES = 8
"""How often an instruction may be begun before it is done: each exit of its accesses maps something that it needs."""
WORDS = {
    user | how: ("user " if user else "") + ("write" if how & WRITE else "fetch" if how & FETCH else "read")
    for user in (0, USER)
    for how in (0, WRITE, FETCH, WRITE | FETCH)
}
"""What an access is called."""


class GuestOperations(L2Operations):
    """The guest's own operations."""

    def _address(self, index: int, gva: int) -> int:
        """An operation's address if the vCPU's mode can name it, else another, so that any list of operations makes sense."""
        tlb = self.oracle.vcpus[index]
        levels = tlb.l2.mode.levels if tlb.l2 else tlb.mode.levels
        if (gva & ~0xFFF) in (REACH if tlb.l2 else self.reach)[levels] or (not levels and not gva >> 32):
            return gva
        return LOW[(gva >> 12) % len(LOW)] | gva & 0xFFF

    def _access(self, op: Op) -> str:
        _, index, gva, access, size, value = op
        access = self._as_seen(index, access)
        self._reload_pdptes(index)
        gva = self._address(index, gva)
        edits, tlb, cpu = self.oracle.edits, self.oracle.vcpus[index], self.cpus[index]
        cpu.instruction = (gva >> 12 & 3, bool(access & WRITES_TABLES)) if access & DONE_AGAIN else None
        how = gva, access & 0xFF, bool(access & AC), size, value if access & WRITE else None
        result = access_l2(cpu, tlb.l2, tlb.mode.levels, *how) if tlb.l2 else cpu.access(*how)
        exits = result.exits
        if result.how == Done.INJECTED:
            self._after_fault(index)
        if "EMULATE" in exits:
            self.emulated[index] = True
            self._see_unmapped(index, gva)
            self._check_noted_in_l2(index)
        self._check_noted(index, gva, access & 0xFF)
        what = WORDS[access & (USER | WRITE | FETCH)] + (" of an entry" if access & WRITE and self.oracle.edits != edits else "")
        return f"{what} {result.how._value_}{' after ' + ','.join(exits[-2:]) if exits else ''}"

    def _instruction(self, op: Op) -> str:
        """It needs two translations at once: after each exit it is fetched again, so what maps one may not take the other away."""
        user = op.c & USER
        for _ in range(TIMES):
            fetched = self._access(Op(Kind.ACCESS, op.vcpu, op.a, FETCH | user, 1, 0))
            if "completed" not in fetched:
                return f"not fetched: {fetched.partition(' ')[2]}"
            done = self._access(Op(Kind.ACCESS, op.vcpu, op.b, op.c, 8, op.d))
            if "completed" not in done or "after" not in fetched + done:
                return done
        tlb = self.oracle.vcpus[op.vcpu]
        if op.c & WRITE and not user and not tlb.cr0 & CR0_WP:
            return "written or executed, one at a time"  # what is made writable so has other rights than what is fetched from
        what = f"an instruction at {op.a:#x} that {_word(op.c)}s at {op.b:#x}"
        raise Violation(f"vcpu {op.vcpu}: no progress: {what} has been begun {TIMES} times")

    def _see_unmapped(self, index: int, gva: int) -> None:
        """Something was emulated: as it met a table, or as there is no memory, which alone the MMU remembers."""
        pages = self.oracle.vcpus[index].possible(gva) if not self.nested else set()
        if any(self.slots.host(page.address(gva)) is None for page in pages):
            self.unmapped[index] = gva if all(page.shift == 12 for page in pages) else None

    def _check_noted(self, index: int, gva: int, access: int) -> None:
        """What the MMU remembers of an access that found no memory: not of other memslots (I16), and a translation that a CPU may hold
        (I12)."""
        if self.nested:
            return
        vcpu, unmapped = self.vm.vcpus[index], self.unmapped[index]
        noted = vcpu.mmio_gpa(gva, access)
        if noted is not None:
            self._check_mmio(index, gva, noted)
        if unmapped is None:
            return
        for how in (0, USER):
            noted = vcpu.mmio_gpa(unmapped, how)
            if noted is not None:
                self._check_mmio(index, unmapped, noted)

    def _check_mmio(self, index: int, address: int, noted: int) -> None:
        """I16, but of a page that was MMIO before the memslots changed, if something was emulated since: with paging, a sync may have
        made its old mark new (docs/kernel-quirks.md). I12 not of a large page, of which one small part is remembered, and forgotten by
        its own address alone, nor when an L2 without paging runs, for which nothing is forgotten."""
        tlb = self.oracle.vcpus[index]
        renewed = self.emulated[index] and tlb.mode.levels and noted >> 12 in self.oracle.unguarded.gfns
        if self.slots.host(noted) is not None and not renewed:
            raise Violation(f"vcpu {index}: I16: {address:#x} is noted as MMIO at {noted:#x}, which is in a memslot")
        small = address == self.unmapped[index] and tlb.mode.levels
        if small and all(page.address(address) != noted for page in tlb.possible(address)):
            raise Violation(f"vcpu {index}: I12: {address:#x} is noted as MMIO at {noted:#x}, where the guest has it no more")

    def _emulated(self, op: Op) -> str:
        access, size, value = op[3:]
        implicit = bool(access & IMPLICIT)
        access = self._as_seen(op.vcpu, access & ~USER if implicit else access)
        self._reload_pdptes(op.vcpu)
        gva, stored = self._address(op.vcpu, op.a), value if access & WRITE else None
        self.cpus[op.vcpu].enter()
        result = self.cpus[op.vcpu].emulate(gva, access & 0xFF, bool(access & AC), size, stored, implicit=implicit)
        if result.how == Done.INJECTED:
            self._after_fault(op.vcpu)
        return f"{_word(access)} {result.how.value}"

    def _poke(self, op: Op) -> str:
        self._settle_pdptes()
        _, index, gpa, size, value, _ = op
        gpa = min(gpa, (gpa | 0xFFF) + 1 - size)  # within one page
        if size == 4 and gpa & 7 > 4:
            gpa &= ~7  # the MMU takes four bytes for half of an entry of eight, wherever they begin
        cpu, tlb = self.cpus[index], self.oracle.vcpus[index]
        if not cpu.vcpu.write_emulated(gpa, value.to_bytes(size, "little")):
            if self.slots.may_store(gpa):
                raise Violation(f"vcpu {index}: emulated store to gpa {gpa:#x} refused, though it is memory")
            return "no memory"
        tlb.emulated_store(gpa, size)
        return "stored"

    def _invlpg(self, op: Op) -> str:
        gva = self._address(op.vcpu, op.a)
        if self.nested:  # L1 flushes on VMRUN
            self._run_l2(op.vcpu, *self.registers(op.vcpu))
            return "flushed"
        self.vm.vcpus[op.vcpu].invlpg(gva)
        self.oracle.vcpus[op.vcpu].invlpg(gva)
        if stale := stale_entry(self.vm, self.vm.vcpus[op.vcpu], gva):
            raise Violation(f"vcpu {op.vcpu}: I12: after INVLPG of {gva:#x} the shadow has {stale}")
        return "done"

    def _register(self, op: Op) -> str:
        outcome = self._write(op.vcpu, Kind(op.kind).name, op.a)
        return outcome + (" keeping translations" if op.kind == Kind.CR3 and op.a >> 63 else "")

    def _write(self, index: int, name: str, value: int) -> str:
        """Write a control register and tell the oracle."""
        vcpu, tlb = self.vm.vcpus[index], self.oracle.vcpus[index]
        registers = list(self.registers(index))
        registers[REGISTER[name]] = value
        if not self._nests(*registers) if self.nested else is_refused(REGISTER[name], value, self.registers(index), GUEST.maxphyaddr):
            return "not now"
        if self.nested:
            self._run_l2(index, *registers)
            return "accepted"
        if name == "CR3" and not tlb.cr4 & CR4_PCIDE:
            value &= ~(1 << 63)
            registers[1] = value
        accepted, flips = bool(getattr(vcpu, "set_" + name.lower())(value)), tlb.cr4 ^ registers[2]
        cr0, cr3, cr4, efer = registers
        if not accepted and paging(cr0, cr4, efer, self.features).levels != 3:
            raise Violation(f"vcpu {index}: write of {value:#x} to {name} refused")
        tlb.load(cr0, cr3, cr4, efer, mov_cr3=name == "CR3", accepted=accepted)
        if (vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer & ~EFER_LMA) != (tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer):
            raise Violation(f"vcpu {index}: after a write of {value:#x} to {name} the guest sees other registers than it wrote")
        if name == "CR3" and accepted and cr4 & CR4_PCIDE and not value >> 63:
            self._check_kept(index, f"PCID {cr3 & 0xFFF:#x} was flushed", cr3 & 0xFFF)
        if name == "CR4" and accepted and flips & cr4 & CR4_PCIDE:
            self._check_kept(index, "PCIDs are on, before each load of CR3 flushed")
        return "accepted" if accepted else "refused"

    def _illegal(self, op: Op) -> str:
        """#GP, and nothing has changed."""
        vcpu, number, value = self.vm.vcpus[op.vcpu], op.a & 3, op.b
        if self.nested:
            return self._illegal_ncr3(op.vcpu, value)
        before = vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer
        now = (*before[:3], before[3] & ~EFER_LMA)
        if not is_refused(number, value, now, GUEST.maxphyaddr):
            return "not now"
        wrote = f"vcpu {op.vcpu}: a write of {value:#x} to register {number} with cr0 {now[0]:#x} cr4 {now[2]:#x}"
        if getattr(vcpu, ("set_cr0", "set_cr3", "set_cr4", "set_efer")[number])(value):
            raise Violation(f"{wrote} was accepted")
        if (vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer) != before:
            raise Violation(f"{wrote} was refused, and changed registers")
        return "refused"

    def _check_kept(self, index: int, why: str, pcid: int | None = None) -> None:
        """I12 of roots that are kept: when the guest has flushed (a PCID), none comes back with what was not synced."""
        for root in self.vm.vcpus[index].prev_roots:
            if pcid in (None, root.pgd & 0xFFF) and self._unsync_below(root.hpa):
                raise Violation(f"vcpu {index}: I12: {why}, and root {root.hpa:#x} is kept with unsync tables below")

    def _smm(self, op: Op) -> str:
        """All at once, and nothing shadowed is kept: Linux does not protect a table from what the other address space maps already."""
        if not self.smm or any(self.l1):
            return "not now"
        self.vm.zap_all_fast()
        for vcpu in self.vm.vcpus:
            vcpu.smm = bool(op.a)
        return "entered" if op.a else "left"

    def _mode(self, op: Op) -> str:
        cr0, cr3, cr4, efer = op[2:]
        if not (self._nests(*op[2:]) if self.nested else self._stands(cr0, cr4, efer)):
            return "not now"
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


def _word(access: int) -> str:
    return WORDS[access & (USER | WRITE | FETCH)]
