# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What L1 does with an L2, on nested tables or without: it runs it, leaves it, changes its registers and the tables below it."""

from shadowmmu.check.fuzz.operations import (
    AC,
    LOW,
    PAGE,
    Op,
)
from shadowmmu.check.fuzz.sense import CR0_BASE
from shadowmmu.check.fuzz.slots import DirectMap
from shadowmmu.check.fuzz.stage import REGISTER, Stage
from shadowmmu.check.oracle.virtual_tlb import VirtualTlb
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.two_dimensional import L2
from shadowmmu.hardware.walk import (
    CR0_PG,
    CR4_PCIDE,
    CR4_PKE,
    EFER_LMA,
    EFER_LME,
    FETCH,
    GUEST_FINAL,
    GUEST_TABLE,
    PRESENT,
    USER,
    WRITE,
    bits,
    paging,
)


class L2Operations(Stage):
    """L1 and L2."""

    def _start(self, index: int) -> None:
        """One vCPU, without paging; on a host with NPT it runs an L2."""
        if self.nested:
            self._run_l2(index, CR0_BASE | CR0_PG, PAGE, 0, 0)
        else:
            self.vm.vcpus[index].set_sregs(cr0=CR0_BASE, cr3=PAGE, cr4=0, efer=0)
            self.oracle.vcpus[index].load(CR0_BASE, PAGE, 0, 0)

    def _reload_pdptes(self, index: int) -> None:
        """Bare roots take the PDPTEs of a PAE L1's nested tables at VMRUN; of a later change Linux knows nothing (H4)."""
        if self.nested and ROOT_DESIGNS[self.setup.roots].bare and self.oracle.vcpus[index].pdptes != self.pdptes[index]:
            self._run_l2(index, *self.registers(index))

    def _settle_pdptes(self) -> None:
        """L1 runs VMRUN before the next store if it has changed PDPTEs: with the old ones cached, tables would be found by a
        way that is no more, with entries that are new; the oracle knows whole walks only."""
        for index, tlb in enumerate(self.oracle.vcpus):
            if self.nested and tlb.pdptes != self.pdptes[index]:
                self._run_l2(index, *self.registers(index))

    def _as_seen(self, index: int, access: int) -> int:
        """Nested tables are walked for a user's access, whatever an L2 without paging does (APM 15.25.5)."""
        return access & ~AC | USER if self.nested and self.oracle.vcpus[index].l2 is None else access

    def _after_fault(self, index: int) -> None:
        """A fault of nested tables is a #VMEXIT: L1 sees it, and runs L2 again."""
        if self.nested:
            self._run_l2(index, *self.registers(index))

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

    def _illegal_ncr3(self, index: int, ncr3: int) -> str:
        """VMRUN with nested tables where the guest's CPU has no address, or by an L1 without paging (APM 15.25.3): #VMEXIT, invalid
        state; L1 runs L2 again as it was."""
        vcpu = self.vm.vcpus[index]
        vcpu.nested_vmexit()
        if not ncr3 & bits(51, self.vm.maxphyaddr):
            vcpu.set_sregs(CR0_BASE, 0, 0, 0)
        if vcpu.nested_vmrun(*self._with_lma(self.l2[index]), ncr3=ncr3 & bits(51, 12)):
            raise Violation(f"vcpu {index}: VMRUN with nested tables at {ncr3:#x} was accepted")
        self._run_l2(index, *self.registers(index))
        return "refused"

    def _with_lma(self, registers: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        cr0, cr3, cr4, efer = registers
        return cr0, cr3, cr4, efer | (EFER_LMA if efer & EFER_LME and cr0 & CR0_PG else 0)

    def _see_l2(self, index: int) -> None:
        """The CPU and the oracle walk L2's tables as its registers say."""
        cr0, cr3, cr4, efer = self.l2[index]
        self.oracle.vcpus[index].l2 = L2(paging(cr0, cr4, efer, self.features), cr3, self.pkru[index]) if cr0 & CR0_PG else None

    def _l2_mode(self, op: Op) -> str:
        if not self.nested or not self._stands(op.a, op.c, op.d):
            return "not now"
        self.l2[op.vcpu] = op[2:]
        self._run_l2(op.vcpu, *self.registers(op.vcpu))
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

    def _check_noted_in_l2(self, index: int) -> None:
        """I12: what the MMU remembers of an access that found no memory is not taken for another address. Where an L2 with paging of
        its own runs on nested tables, the address that has been met is L2's physical one, and no virtual one leads anywhere by it."""
        tlb = self.oracle.vcpus[index]
        if not self.nested or tlb.l2 is None:
            return
        for address in LOW:
            noted = {self.vm.vcpus[index].mmio_gpa(address, how) for how in (0, USER, WRITE, USER | WRITE)} - {None}
            if noted and noted != {self._where_l2_is(tlb, address)}:
                raise Violation(f"vcpu {index}: I12: L2's {address:#x} is noted as MMIO, and its tables lead elsewhere: {sorted(noted)}")

    def _where_l2_is(self, tlb: VirtualTlb, gva: int) -> int | None:
        """Where L2's own tables, and L1's below them, lead for a read of the supervisor's."""
        tlb.before_walk(gva, 0, True, emulated=True)
        found = tlb.prediction.result if tlb.prediction else 0
        return None if isinstance(found, int) else found.address(gva)

    def _pkru(self, op: Op) -> str:
        """WRPKRU, which is #UD without CR4.PKE. L1 and L2 have one register, and it means nothing for the nested tables."""
        if not self.nested or not (self.l2[op.vcpu][2] | self.oracle.vcpus[op.vcpu].cr4) & CR4_PKE:
            return "not now"
        self.vm.vcpus[op.vcpu].pkru = self.pkru[op.vcpu] = op.a
        self._see_l2(op.vcpu)
        return "written"

    def _beyond(self, op: Op) -> str:
        """4 GiB and more below nested tables of 32-bit addresses: they do not map it, whatever its low bits find (H2)."""
        if not self.nested or self.oracle.vcpus[op.vcpu].mode.levels > 3 or not op.a >> 32:
            return "not now"
        vcpu, access = self.vm.vcpus[op.vcpu], op.b & (WRITE | FETCH) | USER
        self.cpus[op.vcpu].enter()
        outcome = vcpu.page_fault(op.a, access | GUEST_FINAL).name
        fault = vcpu.exception if outcome == "INJECT" else None
        if fault is None or not fault.nested or fault.cr2 != op.a:
            raise Violation(f"vcpu {op.vcpu}: L2 physical {op.a:#x} is {outcome} below nested tables that end at 4 GiB")
        self._after_fault(op.vcpu)
        return "injected"

    def _l1_store(self, op: Op) -> str:
        """L2 is left, L1 stores through its own direct mapping, as it edits its tables, and runs L2 again."""
        if not self.nested or (self.host_levels == 3 and op.a >> 32):  # which a 32-bit L1 has not
            return "not now"
        gpa, size, value = op[2:5]
        registers = self.registers(op.vcpu)
        cpu, tlb = self.cpus[op.vcpu], self.oracle.vcpus[op.vcpu]
        self.vm.vcpus[op.vcpu].nested_vmexit()
        self._see_itself(op.vcpu, gpa)
        cpu.observer = DirectMap(self.slots, self.oracle)
        cpu.instruction = None
        # Linux 6.1 tries a page walk's store again whatever stopped it: in a read-only memslot, for ever.
        where = GUEST_TABLE if op.d and self.slots.writable(gpa & -size) else GUEST_FINAL
        result = cpu.access(gpa & -size, WRITE | USER, False, size, value, where)
        cpu.observer = tlb
        self._run_l2(op.vcpu, *registers)
        return result.how.value

    def _see_itself(self, index: int, gva: int) -> None:
        """L1 is back on its own tables, which lie at 0: what is not present there is not, whatever L2's tables or the nested ones say."""
        mode = self.oracle.vcpus[index].mode
        if mode.levels == 3:  # its PDPTEs are what they were when it began
            return
        at = (gva >> mode.steps[0].shift & mode.steps[0].mask) * mode.entry_size
        top = self.slots.peek(at, mode.entry_size)
        if top is None or top & PRESENT:
            return
        found = self.vm.vcpus[index].gva_to_gpa(gva & (0xFFFFFFFF if mode.levels == 2 else gva), USER)
        if found is not None:
            raise Violation(f"vcpu {index}: L1's own address {gva:#x}, which its tables do not map, leads to {found:#x}")

    def _vmrun(self, op: Op) -> str:
        """L1 enters an L2 without nested paging: other registers, and nothing kept. An illegal CR3 comes back at once."""
        vcpu, tlb = self.vm.vcpus[op.vcpu], self.oracle.vcpus[op.vcpu]
        if self.nested or not self.amd or self.l1[op.vcpu] or vcpu.smm or not self._stands(op.a, op.c, op.d):
            return "not now"
        self.l1[op.vcpu] = self.registers(op.vcpu)
        cr0, cr3, cr4, efer = op[2:]
        accepted = vcpu.nested_vmrun(cr0, cr3, cr4, efer | (EFER_LMA if efer & EFER_LME and cr0 & CR0_PG else 0))
        self._switch(tlb, (cr0, cr3, cr4, efer), accepted)
        return "accepted" if accepted else f"refused, {self._vmexit(op)}"

    def _vmexit(self, op: Op) -> str:
        """Back to L1, which Linux may give another CR4, when only one of L1 and L2 has paging (docs/kernel-quirks.md)."""
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
