# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Invents what a guest does to its registers: control bits, CR3, PCIDs, paging modes, SMM, an L2 of other registers."""

from shadowmmu.check.fuzz.host_operations import HostOperations
from shadowmmu.check.fuzz.illegal import invent
from shadowmmu.check.fuzz.memory_author import MemoryAuthor
from shadowmmu.check.fuzz.operations import GUEST, Kind, Setup
from shadowmmu.check.fuzz.sense import CR0_BASE, CR0_CD, KEEP
from shadowmmu.check.fuzz.table_writer import ACCESSES, NORMAL
from shadowmmu.hardware.walk import (
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PKE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LME,
    EFER_NXE,
)


class RegisterAuthor(MemoryAuthor):
    """Writes it."""

    def __init__(self, setup: Setup, guest: HostOperations) -> None:
        super().__init__(setup, guest)
        self.last_l2: tuple[int, int, int, int] | None = None
        """Registers that L1 has run one without nested paging with."""

    def cr3(self, vcpu: int) -> None:
        tlb = self.guest.oracle.vcpus[vcpu]
        cr3 = self.random.choice((tlb.cr3, self.guest.oracle.vcpus[1 - vcpu].cr3, self._root(), self._root()))
        if tlb.cr4 & CR4_PCIDE:
            cr3 = cr3 & ~0xFFF | self.random.below(3) | (KEEP if self.random.random() < 0.7 else 0)
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
                (Kind.CR4, CR4_PKE if self.guest.nested else CR4_PGE),
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
        cr4 |= CR4_PKE if self.guest.nested and random.random() < 0.4 else 0  # an L1 that has them; its nested tables have not
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
            cr0, cr3, cr4, efer = self.last_l2
            self._add(Kind.VMRUN, vcpu, cr0, cr3, cr4, efer)
        self._add(Kind.ACCESS, vcpu, self.random.choice(self.recent), self.random.choice(ACCESSES), 8, 0)

    def illegal(self, vcpu: int) -> None:
        """A register write that is refused."""
        number, value = invent(self.random, self.guest.registers(vcpu), GUEST.maxphyaddr)
        self._add(Kind.ILLEGAL, vcpu, number, value)
