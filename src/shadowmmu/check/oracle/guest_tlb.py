# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What a bare CPU could hold of a guest's tables, after what the guest has done to its registers and its TLB (SDM 4.10.4.1)."""

from shadowmmu.check.oracle.translations import AddressSpace
from shadowmmu.check.oracle.watched_guest import WatchedGuest
from shadowmmu.check.oracle.words import in_hex
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import Translation, paging

NPT_PDPTE_HIGH = 0xFFF  # bits of a PDPTE's address beyond the physical ones: they lead outside memory
CR0_CACHE = 0x60000000  # CD, NW: a change reloads PDPTEs (SDM 4.4.1)
PDPTE = hw.ADDRESS | 1


class GuestTlb:
    """Of one vCPU."""

    def __init__(self, oracle: WatchedGuest, name: str) -> None:
        self.oracle, self.memory, self.name = oracle, oracle.memory, name
        self.unguarded = oracle.unguarded
        self.cr0 = self.cr3 = self.cr4 = self.efer = 0
        self.nested = False
        """The tables are L1's NPT below an L2 without paging; `cr3` is nCR3, the other registers are L1's."""
        self._pdptes: tuple[int, ...] = (0, 0, 0, 0)
        self.flushed = False
        """The guest has flushed since it was entered last: nothing that is shadowed may be stale."""
        self.flushed_all = False
        """It has flushed the other PCIDs' translations, too, by CR4: what was shadowed for those may not come back stale."""
        self._set_mode()
        self.space = AddressSpace(self, oracle.watched, 0)
        self.spaces = {0: self.space}
        oracle.spaces.append(self.spaces)

    # --- what the guest does to its registers and its TLB

    def load(self, cr0: int, cr3: int, cr4: int, efer: int, *, mov_cr3: bool = False, accepted: bool = True) -> None:
        """The guest wrote one control register; these are all of them, had the write been `accepted`. SDM 4.10.4.1."""
        was, now = self.mode.levels, paging(cr0, cr4, efer, self.oracle.features)
        self.nested = False
        flips0, flips4 = self.cr0 ^ cr0, self.cr4 ^ cr4
        pdpte_bits = hw.CR4_PAE | hw.CR4_PGE | hw.CR4_PSE | hw.CR4_SMEP
        pdptes = self._pdptes
        if now.levels == 3 and (mov_cr3 or flips0 & (hw.CR0_PG | CR0_CACHE) or flips4 & pdpte_bits):
            loaded = [self._read_gpa((cr3 & 0xFFFFFFE0) + 8 * i, 8) for i in range(4)]
            legal = not any(p is None or (p & 1 and p & now.pdpte_reserved) for p in loaded)
            if legal != accepted:
                verdict = "accepted" if accepted else "refused"
                raise Violation(f"{self.name}: a register write with cr3 {cr3:#x} and PDPTEs {in_hex(loaded)} was {verdict}")
            pdptes = tuple(p or 0 for p in loaded)
        if not accepted:
            return
        noflush = bool(mov_cr3 and cr4 & hw.CR4_PCIDE and cr3 >> 63)
        self.cr0, self.cr3, self.cr4, self.efer, self._pdptes = cr0, cr3 & ~(1 << 63), cr4, efer, pdptes
        self._set_mode()
        anew = was != now.levels or bool(flips4 & ~cr4 & hw.CR4_PCIDE)
        all_forgotten = anew or bool(flips4 & hw.CR4_PGE)
        if anew:
            self.spaces.clear()
        for space in self.spaces.values() if all_forgotten else ():
            space.forget()
            space.mixed = False
        self.flushed_all = self.flushed_all or (all_forgotten and not mov_cr3)
        self.flushed = self.flushed or all_forgotten or (mov_cr3 and not noflush)
        self.space = self.spaces[self._pcid] = self.spaces.get(self._pcid) or AddressSpace(self, self.oracle.watched, cr3)
        if mov_cr3:
            self.space.mixed = noflush and (self.space.mixed or self.space.cr3 != self.cr3)
        self.space.cr3 = self.cr3
        if flips4 & cr4 & hw.CR4_SMEP:
            self.space.forget()
        elif mov_cr3 and not noflush:
            self.space.keep_global()
        self.rebuild()

    def vmrun(self, cr0: int, ncr3: int, cr4: int, efer: int) -> None:
        """L1, with these registers, runs an L2 without paging on its nested tables at `ncr3`; nothing of before is kept."""
        self.nested = True
        self.cr0, self.cr3, self.cr4, self.efer = cr0, ncr3, cr4, efer
        self.flush()

    def flush(self) -> None:
        """Nothing is kept: VMRUN and #VMEXIT, with TLB_CONTROL 1 or between ASIDs (APM 15.16)."""
        self.flushed = True
        self._set_mode()
        self.space = AddressSpace(self, self.oracle.watched, self.cr3)
        self.spaces.clear()
        self.spaces[self._pcid] = self.space
        self.rebuild()

    @property
    def _pcid(self) -> int:
        """Whose translations the CPU makes and uses now (SDM 4.10.1). Nested tables have none."""
        return self.cr3 & 0xFFF if self.cr4 & hw.CR4_PCIDE and not self.nested else 0

    @property
    def pdptes(self) -> tuple[int, ...]:
        """The four PDPTE registers, or for an NPT what memory holds, without bits that Linux does not look at."""
        return self.four_pdptes()

    def four_pdptes(self) -> tuple[int, ...]:
        """`pdptes`, for compiled code."""
        if not self.nested:
            return self._pdptes
        at = self.memory.frame(self.cr3 & 0xFFFFFFE0)  # they lie beside each other
        if at == NOWHERE:
            return 0, 0, 0, 0
        return self._nested_pdpte(at), self._nested_pdpte(at + 8), self._nested_pdpte(at + 16), self._nested_pdpte(at + 24)

    def _nested_pdpte(self, hpa: int) -> int:
        pdpte = self.memory.value(hpa, 8)
        return 0 if pdpte >> self.oracle.maxphyaddr & NPT_PDPTE_HIGH else pdpte & PDPTE

    def invlpg(self, gva: int) -> None:
        """The guest executed INVLPG: pages of any size that hold the address, and all cached tables, are gone."""
        space: AddressSpace
        for space in self.spaces.values():
            space.drop(gva, space is not self.space)
            space.rebuild()

    def rebuild(self) -> None:
        """Memory, or how it is read, has changed: look at all tables again."""
        space: AddressSpace
        for space in self.spaces.values():
            space.rebuild()

    def possible(self, gva: int) -> set[Translation]:
        """The translations of a watched address that the CPU can hold now. Without paging, of any address."""
        if not self.mode.levels:
            return {Translation(gva & hw.ADDRESS, 12, hw.ALL | hw.DIRTY)}
        number = self.oracle.numbers[gva >> 12]
        return {page for space in self.spaces.values() for page in space.members(number, space is not self.space)}

    def leads(self, gva: int, first: int, pages: int) -> bool:
        """A translation of a watched address that the CPU can hold leads to one of these guest pages."""
        number = self.oracle.numbers[gva >> 12]
        found = False
        for space in self.spaces.values():
            found = found or space.leads(number, gva, first, pages, space is not self.space)
        return found

    @property
    def strict(self) -> bool:
        return self.oracle.strict

    def _set_mode(self) -> None:
        """The mode of the registers, and the readings of an entry under which shadow pages may have been made."""
        cr4 = self.cr4
        if self.nested:  # always a user's access, so neither SMEP nor SMAP; no global pages and no keys (APM 15.25.5)
            cr4 &= hw.CR4_PSE | hw.CR4_PAE | hw.CR4_LA57
        self.mode, self.views = self.oracle.mode(self.cr0, cr4, self.efer)
        self.shape = self.oracle.shape(self.mode)

    def _read_gpa(self, gpa: int, size: int) -> int | None:
        hpa = self.memory.host(gpa)
        return None if hpa is None else self.memory.read(hpa, size)
