# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Virtual TLB oracle: what the guest's own tables have allowed since the guest last invalidated.

Shadow paging emulates a TLB. For each vCPU, each PCID it has used and a set of watched addresses (`AddressSpace`) the
oracle follows every translation that a bare CPU of the guest could hold:

* `tables`: for every level the set of (table, rights) that the CPU, or a paging-structure cache, can have reached;
  an entry that changes adds what it now leads to (SDM 4.10.3);
* `pages`: for every watched page the set of leaf translations, rights and D included, likewise (SDM 4.10.2).

An entry counts from the moment its A bit is set (SDM 4.8). What the manuals say must be forgotten is forgotten
(SDM 4.10.4.1): MOV CR3 drops all but global pages, INVLPG and a #PF the pages that hold the address, changes of
CR0.PG, CR4.PGE, CR4.PAE and the like everything; `tables` start anew at each of these.

Checked:
1. An access that the CPU completed at host address h: some member of `pages` leads to a guest address that the
   memslots now back with h, and allows the access under the present CR0.WP, SMEP, SMAP and EFLAGS.AC; a write also
   needs D in that leaf and a writable slot. Without paging only gpa = gva.
2. A fault given to the guest: #PF, its address and error code exactly those of a walk of the present tables.
   Conversely a fault that the present tables do not give must not be injected.
3. A translation made for the emulator: present tables, exactly, faults included. Without paging the emulator is
   never asked for a load or fetch of memory.
4. A and D: after the engine has walked for an access, the entries used have A, the leaf of a write has D, and nothing
   else in them has changed. After a fault nothing has changed.
5. PDPTEs: a control-register write is refused if and only if a present PDPTE has reserved bits (SDM 4.4.1).

Not checked: addresses that are not watched; emulated accesses of a PAE L2 whose PDPTEs cannot be loaded; protection
keys (KVM gives shadow-paged guests none); that an entry which is not used has no A bit; memory types; what the guest
reads (same host memory, so 1 covers it); that the engine faults less than it might. Rule 2 is stricter than the
architecture, which also allows stale faults. A PCID counts as walked all the time, loaded or not; a #PF for a not-
present page drops nothing (a bare CPU drops the address).

Known differences of Linux from a bare CPU. They are allowed here, unless `strict`:
* I/D in the error code with EFER.NXE but without CR4.PAE: Linux sets it.
* A table in a read-only memslot: A and D are taken as set (there they cannot be).
* A table outside all memslots reads as not present. 4 MB pages name 36 physical bits.
* With CR0.WP=0 Linux maps a user page that the supervisor writes, but the guest's entry does not let it, as a
  supervisor page; if EFLAGS.AC allowed that write under SMAP, the page stays within reach after AC is cleared.
* Linux reports a fetch in the nested fault of an NPT without NX if L1 has CR4.SMEP.
* A nested fault met while the emulator walks L2's tables is reported at the page, not at the entry or byte in it.
* Reserved bits of a PDPTE of an NPT are not looked at; those of its address lead outside memory.
* A #PF drops the address from the shadow of the present CR3 alone. If the guest loads another CR3 with the same PCID
  and keeps its translations (CR3 bit 63), those of the first stay within reach.
* With paging it may be asked for one: syncing renews an MMIO mark although a memslot has been made there meanwhile.
* A store from outside the VM to a table that is shadowed goes unseen: what the entry was stays in force until the guest stores to it.
* A store by another gfn of a table's host memory goes unseen, too, as tables are protected by gfn: what its entries were counts on.
* A table where a memslot has come after MMIO was done there: the guest may store to it unseen, so what its entries were counts on.
* Shadow pages do not record EFER.NXE, CR4.PSE and PAE-versus-long mode, so after a change of one of them an entry
  may still be used as the other setting reads it: bit 63, bits 52-62, and bit 7 of a 4-byte PDE.
"""

from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

import cython

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.present import Present
from shadowmmu.check.oracle.translations import AddressSpace, Shape
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.second_level import Npt, SecondLevelFault, walk_two_dimensions
from shadowmmu.hardware.two_dimensional import L2
from shadowmmu.hardware.walk import Features, Paging, Step, Translation, Walk, bits, paging

NPT_PDPTE_HIGH = 0xFFF  # bits of a PDPTE's address beyond the physical ones: they lead outside memory
CR0_CACHE = 0x60000000  # CD, NW: a change reloads PDPTEs (SDM 4.4.1)
PDPTE = hw.ADDRESS | 1
PAGE_FAULT = 14

Views = list[tuple[Paging, tuple[Step, ...]]]
"""The modes in which an entry may be read, and their steps: under which shadow pages may have been made."""


class Prediction(NamedTuple):
    """What a bare CPU does with the present tables; what it sets in them is in `VirtualTlb.present`."""

    gva: int
    access: int
    result: Translation | int
    address: int  # what a fault reports
    nested: bool  # it is a nested fault, L1's
    two_dimensions: bool = False


class NotJudged(Exception):
    """An emulated access of an L2 in PAE mode whose PDPTEs Linux cannot load: it goes on with old ones, a bare CPU faults."""


class Oracle:
    """The virtual TLBs of all vCPUs of one VM; guest stores reach all of them."""

    def __init__(self, memory: GuestMemory, watched: Iterable[int], vcpus: int, features: Features, strict: bool = False) -> None:
        self.memory, self.features, self.strict = memory, features, strict
        self.maxphyaddr = features.maxphyaddr
        self.watched = tuple(sorted({gva >> 12 for gva in watched}))
        self.numbers = {page: number for number, page in enumerate(self.watched)}
        self.edits = 0  # stores that hit an entry of a watched address, for coverage
        self.dirty: set[int] = set()  # host pages written since the owner last took them out
        self.aliased: Container[int] = ()  # those that several gfns have; of these,
        self.written: set[int] = set()  # by which gfn they were, where only one can have been used
        self.unguarded = Unguarded()
        self._shapes: dict[int, Shape] = {}
        self._modes: dict[tuple[int, int, int], tuple[Paging, Views]] = {}
        self.vcpus = tuple(VirtualTlb(self, f"vcpu {i}") for i in range(vcpus))

    def stored(self, hpa: int, size: int) -> None:
        """The guest has stored to [hpa, hpa + size), within one page."""
        self.unguarded.stored(hpa, size)
        self.marked(hpa, size)

    def marked(self, hpa: int, size: int) -> None:
        """A walk has set A or D in an entry there."""
        self.dirty.add(hpa >> 12)
        self._changed(hpa, size)

    def store_from_outside(self, hpa: int, size: int, store: Callable[[], None]) -> None:
        """A device or the host's user space stores there: tables that are shadowed may stay what they were, and no log is kept."""
        self.unguarded.store_from_outside(hpa, size, self.memory.read)
        store()
        self._changed(hpa, size)

    def _changed(self, hpa: int, size: int) -> None:
        tlb: VirtualTlb
        space: AddressSpace
        for tlb in self.vcpus:
            for space in tlb.spaces.values():
                self.edits += space.entries_changed(hpa, size)

    def memory_changed(self) -> None:
        """Memslots or the host's pages behind them have changed: look at every table again."""
        if not self.strict:
            self.unguarded.memory_changed(self.memory)
        for tlb in self.vcpus:
            for space in tlb.spaces.values():
                space.look_again()

    def shape(self, mode: Paging) -> Shape:
        """The tree of watched addresses, cut as this mode cuts addresses."""
        if mode.levels not in self._shapes:
            self._shapes[mode.levels] = Shape(mode, self.watched)
        return self._shapes[mode.levels]

    def mode(self, cr0: int, cr4: int, efer: int) -> tuple[Paging, Views]:
        """The paging mode of these registers, and how entries may be read there."""
        key = cr0, cr4, efer
        if key not in self._modes:
            self._modes[key] = paging(cr0, cr4, efer, self.features), self._views(cr0, cr4, efer)
        return self._modes[key]

    def _views(self, cr0: int, cr4: int, efer: int) -> Views:
        mode = paging(cr0, cr4, efer, self.features)
        if self.strict or not mode.levels:
            return [(mode, mode.steps)]
        if mode.levels == 2:
            other = paging(cr0, cr4 ^ hw.CR4_PSE, efer, self.features)
            return [(mode, mode.steps), (other, other.steps)]
        other = paging(cr0, cr4, efer | hw.EFER_NXE, self.features)  # bit 63 counts as NX, bits 52-62 as ignored
        return [(other, tuple(step.without(bits(62, 52)) for step in other.steps))]


class VirtualTlb:
    """Everything that a bare CPU could hold of the guest's tables, for one vCPU."""

    def __init__(self, oracle: Oracle, name: str) -> None:
        self.oracle, self.memory, self.name = oracle, oracle.memory, name
        self.unguarded = oracle.unguarded
        self.cr0 = self.cr3 = self.cr4 = self.efer = 0
        self.nested = False
        """The tables are L1's NPT below an L2 without paging; `cr3` is nCR3, the other registers are L1's."""
        self.l2: L2 | None = None
        """The L2 that runs on nested tables, if it has paging of its own."""
        self._pdptes: tuple[int, ...] = (0, 0, 0, 0)
        self.prediction: Prediction | None = None
        self.present = Present(oracle.memory)
        self.way = Walk(self.present)
        self.stores: set[int] | None = None
        """Of the access that completed last, a write to a page that several gfns have: those by which it can have gone."""
        self.flushed = False
        """The guest has flushed since it was entered last: nothing that is shadowed may be stale."""
        self.flushed_all = False
        """It has flushed the other PCIDs' translations, too, by CR4: what was shadowed for those may not come back stale."""
        self._set_mode()
        self.space = AddressSpace(self, self.oracle.watched, 0)
        self.spaces = {0: self.space}

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
                raise Violation(f"{self.name}: a register write with cr3 {cr3:#x} and PDPTEs {_hex(loaded)} was {verdict}")
            pdptes = tuple(p or 0 for p in loaded)
        if not accepted:
            return
        noflush = bool(mov_cr3 and cr4 & hw.CR4_PCIDE and cr3 >> 63)
        self.cr0, self.cr3, self.cr4, self.efer, self._pdptes = cr0, cr3 & ~(1 << 63), cr4, efer, pdptes
        self._set_mode()
        anew = was != now.levels or bool(flips4 & ~cr4 & hw.CR4_PCIDE)
        all_forgotten = anew or bool(flips4 & hw.CR4_PGE)
        if anew:
            self.spaces = {}
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
        self.spaces = {self._pcid: self.space}
        self.rebuild()

    @property
    def _pcid(self) -> int:
        """Whose translations the CPU makes and uses now (SDM 4.10.1). Nested tables have none."""
        return self.cr3 & 0xFFF if self.cr4 & hw.CR4_PCIDE and not self.nested else 0

    @property
    def pdptes(self) -> tuple[int, ...]:
        """The four PDPTE registers, or for an NPT what memory holds, without bits that Linux does not look at."""
        if not self.nested:
            return self._pdptes
        at = self.cr3 & 0xFFFFFFE0
        return self._nested_pdpte(at), self._nested_pdpte(at + 8), self._nested_pdpte(at + 16), self._nested_pdpte(at + 24)

    def _nested_pdpte(self, gpa: int) -> int:
        hpa = self.memory.frame(gpa)
        pdpte = 0 if hpa == NOWHERE else self.memory.value(hpa, 8)
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

    # --- the checks

    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None:
        """Rule 1."""
        number = self.oracle.numbers.get(gva >> 12)
        if number is None and self.l2 is not None:
            return  # L2's tables led to an address that is not watched
        self.stores = set() if access & hw.WRITE and hpa >> 12 in self.oracle.aliased else None
        if self.stores is None and self.lets(gva, access, ac, hpa):
            return
        pages = self.possible(gva)
        kernel_pages = not self.mode.wp and not self.oracle.strict
        for page in pages:
            gpa, rights = page.address(gva), page.rights
            lifted = ac or (kernel_pages and not rights & hw.WRITE)
            clean = access & hw.WRITE and not (rights & hw.DIRTY and self.memory.writable(gpa))
            if self.memory.host(gpa) == hpa and self.mode.permits(rights, access, lifted) and not clean:
                if self.stores is None:
                    return
                self.stores.add(gpa >> 12)
        if self.stores:
            return
        what = f"{self.name}: {_access(access)} of {gva:#x} went to host {hpa:#x}"
        raise Violation(f"{what}; the guest allowed only {self._describe_all(pages, gva)}")

    def lets(self, gva: int, access: int, ac: bool, hpa: int) -> bool:
        """The quick answer where there is one: the guest's tables let the access through. If not, `completed` says what they do."""
        if not self.mode.levels:
            stored = not access & hw.WRITE or self.memory.writable(gva)
            return stored and self.memory.host(gva) == hpa and self.mode.permits(hw.ALL, access, ac)
        number = self.oracle.numbers.get(gva >> 12)
        if number is None:
            return False
        found = False
        for space in self.spaces.values():
            found = found or space.lets(number, gva, access, ac, hpa, space is not self.space)
        return found

    def stored(self, hpa: int, size: int) -> None:
        self.oracle.stored(hpa, size)
        if self.stores is not None and len(self.stores) == 1:
            self.oracle.written |= self.stores

    def emulated_store(self, gpa: int, size: int) -> None:
        hpa = self.memory.host(gpa)
        if hpa is not None:
            self.oracle.stored(hpa, size)
            self.oracle.written.add(gpa >> 12)

    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None:
        """Walk the present tables as a bare CPU would, on a copy of the entries it would mark; L2's too for its emulator."""
        self.present.begin()
        if self.l2 is not None and emulated:
            tables = cython.cast(object, self.present)
            npt = Npt(self.mode, tables.load, tables.store, self.cr3, self.pdptes)
            found, address, nested = self._walk_l2(self.l2, npt, gva, access, ac)
            self.prediction = Prediction(gva, access, found, address, nested, True)
            return
        self.prediction = Prediction(gva, access, self._walk_present(gva, access, ac), gva, self.nested)

    def _walk_present(self, gva: int, access: int, ac: bool) -> Translation | int:
        if not self.mode.levels:
            return Translation(gva & hw.ADDRESS, 12, hw.ALL | hw.DIRTY)
        way = self.way
        way.pdptes = self.pdptes if self.mode.levels == 3 else None
        code = way.go(self.mode, self.cr3, gva, access, ac)
        return way.translation() if code == DONE else code

    def _walk_l2(self, l2: L2, npt: Npt, gva: int, access: int, ac: bool) -> tuple[Translation | int, int, bool]:
        """What an access of L2's comes to: (result, address that a fault reports, whether that is nested)."""
        try:
            pdptes = self._pdptes_of_l2(l2, npt) if l2.mode.levels == 3 else None
            found = walk_two_dimensions(l2.mode, npt, l2.cr3, gva, access, ac, pdptes)
        except SecondLevelFault as fault:
            return fault.code & 0xFFFFFFFF, fault.gpa if self.oracle.strict else fault.gpa & ~0xFFF, True
        if isinstance(found, int):
            return found, gva, False
        return Translation(found[1] & ~0xFFF, 12, found[0].rights), gva, False

    def _pdptes_of_l2(self, l2: L2, npt: Npt) -> tuple[int, ...]:
        """What Linux loads before it walks a PAE L2's tables; raises NotJudged where it keeps old ones instead."""
        try:
            at = npt.translate(l2.cr3 & ~0xFFF, 0, True) | l2.cr3 & 0xFE0
        except SecondLevelFault:
            raise NotJudged("L2's PDPTEs are not mapped") from None
        pdptes = tuple(npt.read(at + 8 * i, 8) or 0 for i in range(4))
        if self.memory.host(at) is None or any(p & 1 and p & l2.mode.pdpte_reserved for p in pdptes):
            raise NotJudged("L2's PDPTEs have reserved bits, or are not in memory")
        return pdptes

    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[Any, ...] | None) -> None:
        """Rules 2, 3 and 4."""
        expected = self.prediction
        if expected is None:
            raise ValueError("after_walk without before_walk")
        if exception is not None:
            self._judge_fault(self._what(expected), expected, exception)
        elif outcome == "TRANSLATED" and (isinstance(expected.result, int) or gpa != expected.result.address(expected.gva)):
            wanted = self._outcome(expected.result, expected.address)
            raise Violation(f"{self._what(expected)}: translated to gpa {_hex([gpa])} for the emulator, a bare CPU gives {wanted}")
        must = outcome in ("FIXED", "TRANSLATED") and isinstance(expected.result, Translation)
        self._judge_marks(expected, outcome, must, exception is not None)
        if outcome == "EMULATE" and isinstance(expected.result, Translation):
            gpa = expected.result.address(expected.gva)
            if self.memory.host(gpa) is None:
                self.unguarded.mmio.add(gpa >> 12)
        if outcome == "EMULATE" and not expected.access & hw.WRITE and (self.oracle.strict or not self.mode.levels):
            pages = self.possible(expected.gva)
            if pages and all(self.memory.host(t.address(expected.gva)) is not None for t in pages):
                raise Violation(f"{self._what(expected)}: is to be emulated, but it is memory: {self._describe_all(pages, expected.gva)}")
        drops = self.oracle.strict or not self.space.mixed
        if drops and exception is not None and exception[1] & (hw.PRESENT | hw.RESERVED) == hw.PRESENT:
            self.invlpg(expected.gva)

    def _judge_marks(self, expected: Prediction, outcome: str, must: bool, faulted: bool) -> None:
        """Rule 4."""
        half = expected.two_dimensions and faulted
        for number in range(self.present.seen):
            seen = self.present.entry[number]
            now, new = self.memory.value(seen.hpa, seen.size), self.present.marked(seen.hpa, seen.size, seen.value)
            if now != new and not (half and now == seen.value) and (must or faulted or now != seen.value):
                change = f"as {now:#x}, was {seen.value:#x}, a bare CPU makes it {new:#x}"
                raise Violation(f"{self._what(expected)}: {outcome} left guest entry at host {seen.hpa:#x} {change}")
            if now != seen.value:
                self.oracle.marked(seen.hpa, seen.size)

    def _what(self, expected: Prediction) -> str:
        return f"{self.name}: {_access(expected.access)} of {expected.gva:#x}"

    def _judge_fault(self, what: str, expected: Prediction, exception: tuple[Any, ...]) -> None:
        vector, code, address = exception[:3]
        nested = len(exception) > 3 and bool(exception[3])
        if nested != expected.nested:
            whose = "L1" if nested else "the guest itself"
            raise Violation(
                f"{what}: fault {code:#x} at {address:#x} is for {whose}, a bare CPU: {self._outcome(expected.result, expected.address)}"
            )
        seen = code & 0xFFFFFFFF
        if nested and not self.mode.nx:
            seen &= ~hw.FETCH
        own = self.l2 is not None and expected.two_dimensions and not nested  # the fault of L2's own tables
        mode = self.l2.mode if own and self.l2 is not None else self.mode
        if not self.oracle.strict and mode.levels == 2 and (own or self.efer & hw.EFER_NXE) and expected.access & hw.FETCH:
            seen = code & ~hw.FETCH | mode.code(expected.access) & hw.FETCH
        if (vector, address, seen) != (PAGE_FAULT, expected.address, expected.result):
            got = f"exception {vector} code {code:#x} address {address:#x}"
            raise Violation(f"{what}: the guest gets {got}, a bare CPU gives {self._outcome(expected.result, expected.address)}")

    # --- words

    def _read_gpa(self, gpa: int, size: int) -> int | None:
        hpa = self.memory.host(gpa)
        return None if hpa is None else self.memory.read(hpa, size)

    def _outcome(self, result: Translation | int, gva: int) -> str:
        return f"#PF code {result:#x}" if isinstance(result, int) else self._describe(result, gva)

    def _describe_all(self, pages: Iterable[Translation], gva: int) -> str:
        return ", ".join(self._describe(page, gva) for page in pages) or "nothing"

    def _describe(self, page: Translation, gva: int) -> str:
        gpa, r = page.address(gva), page.rights
        flags = "".join(name if r & bit else "-" for bit, name in ((2, "w"), (4, "u"), (8, "x"), (hw.DIRTY, "D"), (hw.GLOBAL, "G")))
        return f"gpa {gpa:#x} {flags} {1 << page.shift - 10}K (host {_hex([self.memory.host(gpa)])})"


def _access(access: int) -> str:
    mode = "user" if access & 4 else "supervisor"
    return f"{mode} {'write' if access & hw.WRITE else 'fetch' if access & hw.FETCH else 'read'}"


def _hex(values: Iterable[int | None]) -> str:
    return " ".join("none" if v is None else f"{v:#x}" for v in values)
