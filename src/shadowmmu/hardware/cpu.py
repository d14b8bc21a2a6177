# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""A model CPU for one vCPU that runs on the engine's shadow tables.

One access is the unit: enter the guest, translate through the TLB and the shadow tables in host memory, and either
do the load or store or leave with a #PF for the engine, until the access is done, is the guest's own fault, or has
been emulated. Nothing here knows how the engine works; it uses only the face that a machine uses.

The control registers under which the CPU runs a shadow-paged guest (KVM: CR0.PG, CR0.WP, CR4.PAE and EFER.NXE
forced on; SMEP, SMAP and PKE off while the guest has no paging; EFER.LME only in long mode) are in `real_paging`.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import NamedTuple, Protocol

import cython

from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.controller import Controller
from shadowmmu.hardware.held import Held
from shadowmmu.hardware.host_memory import HostMemory, Violation
from shadowmmu.hardware.tlb import Tlb
from shadowmmu.hardware.walk import Features, Paging, Walk, paging

IMPLICIT = 1 << 48  # in the access of a translation for the emulator: KVM's PFERR_IMPLICIT_ACCESS
RETRY_LIMIT = 16  # exits one access may take; more is a violation of progress


def real_paging(cr0: int, cr4: int, efer: int, features: Features) -> Paging:
    """The paging mode in the CPU while the guest believes in `cr0`, `cr4`, `efer`."""
    if not cr0 & hw.CR0_PG:
        cr4 &= ~(hw.CR4_SMEP | hw.CR4_SMAP)
    if not efer & hw.EFER_LMA:
        efer &= ~hw.EFER_LME
    return paging(cr0 | hw.CR0_PG | hw.CR0_WP, (cr4 | hw.CR4_PAE) & ~hw.CR4_PKE, efer | hw.EFER_NXE, features)


def nested_paging(levels: int, features: Features) -> Paging:
    """The nested tables of a host with that many levels; every access to them is a user's (APM 15.25.5)."""
    la57 = hw.CR4_LA57 if levels == 5 else 0
    long = hw.EFER_LME | hw.EFER_LMA if levels > 3 else 0
    return paging(hw.CR0_PG | hw.CR0_WP, hw.CR4_PAE | la57, long | hw.EFER_NXE, features)


class Done(Enum):
    """How an access ended."""

    COMPLETED = "completed"  # by the CPU through the shadow tables
    EMULATED = "emulated"  # through gva_to_gpa and the engine's emulated read or write
    INJECTED = "injected"  # the guest gets vcpu.exception
    L2_FAULT = "faulted in L2"  # by L2's own tables: a #PF without an exit


class AccessResult(NamedTuple):
    """The end of one access."""

    how: Done
    value: int | None  # loaded, or L2's error code; None after a store, an exit to L1 or a read of no memory
    exits: tuple[str, ...]  # the engine's outcomes on the way


class Observer(Protocol):
    """What an oracle sees, each right when it happens. `exception` is what the guest is to get, if anything."""

    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None: ...  # translated, about to be used
    def stored(self, hpa: int, size: int) -> None: ...  # guest memory has changed
    def emulated_store(self, gpa: int, size: int) -> None: ...  # the same, by the engine's write_emulated
    # the engine is about to walk the guest's tables; emulated: for `gva_to_gpa`
    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None: ...
    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[object, ...] | None) -> None: ...  # page_fault's, or "TRANSLATED"


class ModelCpu:
    """The CPU of one vCPU of the engine. `features` are the host's; without `amd` PDPTEs are latched at entry (SDM 26.3.2.3)."""

    def __init__(
        self,
        vcpu: Controller,
        memory: HostMemory,
        features: Features,
        observer: Observer,
        random: Random | None = None,
        npt_levels: int = 0,
    ) -> None:
        self.vcpu, self.memory, self.features, self.observer = vcpu, memory, features, observer
        self.npt_levels = npt_levels
        """Levels of the host's nested tables, below guests without paging: addresses are guest physical. 0: shadow paging."""
        self.instruction: tuple[int, bool] | None = None
        """Where the one stands that is executed, and whether it is of those that write tables; None: it is emulated if need be."""
        self.tlb = Tlb(random)
        self.root = 0
        self.pdptes: tuple[int, ...] | None = None
        self.held: Held | None = None
        """What it may hold without having been asked, where somebody looks at that."""
        self.entered: Callable[[], None] | None = None
        """Called at each VM entry, when what was asked for has been flushed."""

    def enter(self) -> None:
        """VM entry: load the root, do the flushes asked for. A root that changes flushes nothing by itself."""
        entry = self.vcpu.enter()
        self.set_mode()
        root = entry.root
        if entry.level != self.mode.levels:
            raise Violation(f"root of level {entry.level} loaded while the CPU walks {self.mode.levels} levels")
        if self.mode.levels == 3 and root >> 32:
            raise Violation(f"PAE root {root:#x} lies above 4 GiB, out of reach of a 32-bit CR3")
        self.root = root
        self.tag = self.vcpu.cr3 & 0xFFF if self.cr4 & CR4_PCIDE and not self.npt_levels else 0
        if entry.flush_all:
            self.flush()
        for gva in entry.flush_gvas:
            self.forget(gva)
        self.pdptes = None if self.mode.levels != 3 or self.features.amd else self._latch(root)
        if self.entered is not None:
            self.entered()

    def set_mode(self) -> None:
        """The paging mode of the registers, which seldom change."""
        cr0, cr4, efer = self.vcpu.cr0, self.vcpu.cr4, self.vcpu.efer
        if self.mode is not None and cr0 == self.cr0 and cr4 == self.cr4 and efer == self.efer:
            return
        self.cr0, self.cr4, self.efer = cr0, cr4, efer
        if self.npt_levels:
            self.mode = nested_paging(self.npt_levels, self.features)
        else:
            self.mode = real_paging(cr0, cr4, efer, self.features)

    def _latch(self, root: int) -> tuple[int, ...]:
        """The PDPTE registers, as VM entry loads them."""
        pdptes = tuple(self.memory.read(root + 8 * i, 8) for i in range(4))
        for pdpte in pdptes:
            if pdpte & 1 and pdpte & self.mode.pdpte_reserved:
                raise Violation(f"VM entry fails: PDPTE {pdpte:#x} has reserved bits")
        return pdptes

    def translate(self, gva: int, access: int, ac: bool) -> int:
        """Host-physical address of `gva`, or the complement (~) of the #PF error code."""
        mode, one = self.mode, 1
        page = self.tlb.find(self.tag, gva)
        if page != cython.NULL:
            if not mode.permits(page.rights, access, ac):
                self.forget(gva)  # a #PF from a stale entry is allowed, and drops it (SDM 4.10.4.3, 4.10.4.1)
                return ~(mode.code(access) | PRESENT)
            if not access & WRITE or page.rights & DIRTY:
                return page.address | gva & (one << page.shift) - 1
        way = Walk(self.memory)
        way.pdptes = self.pdptes
        self.tlb.resume(self.tag, gva, mode, way)
        code = way.go(mode, self.root, gva, access, ac)
        if code == DONE:
            self.tlb.fill(self.tag, gva, mode, way)
            return way.page | gva & (one << way.shift) - 1
        self.forget(gva)
        return ~code

    def flush(self) -> None:
        """Everything that it holds is gone."""
        self.tlb.flush_all()
        if self.held is not None:
            self.held.flush()

    def forget(self, gva: int) -> None:
        """A flush of one address that was asked for, or a #PF there (SDM 4.10.4.1)."""
        self.tlb.invlpg(self.tag, gva, self.mode)
        if self.held is not None:
            self.held.drop(self.tag, gva)

    def access(self, gva: int, access: int, ac: bool, size: int, value: int | None = None, where: int = hw.GUEST_FINAL) -> AccessResult:
        """Do one load, fetch or store of `size` bytes at `gva`, aligned, to its end. `where` it is of, as nested faults tell."""
        exits: list[str] = []
        hpa = self.find(gva, access, ac, exits, where if self.npt_levels else 0)
        if hpa == "INJECT":
            return AccessResult(Done.INJECTED, None, tuple(exits))
        if isinstance(hpa, str):
            return self.emulate(gva, access, ac, size, value, tuple(exits))
        return self.finish(hpa, size, value, exits)

    def find(self, gva: int, access: int, ac: bool, exits: list[str], where: int) -> int | str:
        """The host address that one access goes to, or the outcome (INJECT, EMULATE) that ends it; `where`: for the error code."""
        vcpu = self.vcpu
        for _ in range(RETRY_LIMIT):
            self.enter()
            hpa = self.translate(gva, access, ac)
            if hpa >= 0:
                self.observer.completed(gva, access, ac, hpa)
                return hpa
            vcpu.ac = ac
            self.observer.before_walk(gva, access, ac)
            outcome = vcpu.page_fault(gva, ~hpa | where)._name_
            exits.append(outcome)
            self.observer.after_walk(outcome, None, vcpu.exception if outcome == "INJECT" else None)
            if outcome == "EMULATE" and self._is_done_again(gva, access):
                continue
            if outcome in ("INJECT", "EMULATE"):
                return outcome
            if outcome not in ("RETRY", "FIXED", "SPURIOUS"):
                raise Violation(f"page_fault({gva:#x}, {~hpa:#x}) ended in {outcome}")
        raise Violation(f"no progress: access {access:#x} to {gva:#x} took {RETRY_LIMIT} exits: {' '.join(exits)}")

    def _is_done_again(self, gva: int, access: int) -> bool:
        """What is to be emulated may be tried again instead, if a table was in the way that is shadowed no more."""
        if self.instruction is None:
            return False
        rip, writes_tables = self.instruction
        self.vcpu.begin_emulation(rip, gva, bool(access & hw.USER))
        return self.vcpu.retry_instruction(writes_tables)

    def finish(self, hpa: int, size: int, value: int | None, exits: Sequence[str]) -> AccessResult:
        """The load, or the store of `value`, at the host address that was found."""
        if value is None:
            return AccessResult(Done.COMPLETED, self.memory.read(hpa, size), tuple(exits))
        self.memory.write(hpa, size, value)
        self.observer.stored(hpa, size)
        return AccessResult(Done.COMPLETED, None, tuple(exits))

    def emulate(
        self, gva: int, access: int, ac: bool, size: int, value: int | None, exits: tuple[str, ...] = (), implicit: bool = False
    ) -> AccessResult:
        """The same access by the machine's emulator; within one page, of any size and alignment. `implicit`: it is the CPU's own, to a
        descriptor table or a TSS, which EFLAGS.AC does not let through SMAP (SDM 4.6.1)."""
        vcpu = self.vcpu
        vcpu.ac = ac
        self.observer.before_walk(gva, access, ac and not implicit, True)
        # The host's own nested tables are the identity. L1's, when L2 runs, are walked by the engine.
        gpa = gva if self.npt_levels and not vcpu.guest_mode else vcpu.gva_to_gpa(gva, access | implicit * IMPLICIT)
        self.observer.after_walk("TRANSLATED", gpa, None if gpa is not None else vcpu.exception)
        if gpa is None:
            vcpu.inject()
            return AccessResult(Done.INJECTED, None, exits)
        if value is not None:
            if vcpu.write_emulated(gpa, value.to_bytes(size, "little")):
                self.observer.emulated_store(gpa, size)
            return AccessResult(Done.EMULATED, None, exits)
        data = vcpu.read_emulated(gpa, size)
        return AccessResult(Done.EMULATED, None if data is None else int.from_bytes(data, "little"), exits)
