# SPDX-License-Identifier: GPL-2.0-only
"""A VM in the middle of an episode: does operations and lets the oracle see them."""

from collections.abc import Callable
from typing import Any

from shadowmmu.check.fuzz.host_operations import HostOperations
from shadowmmu.check.fuzz.operations import (
    PAGE,
    Kind,
    Op,
    Setup,
)
from shadowmmu.check.oracle.prediction import NotJudged
from shadowmmu.engine.arena.role import Role
from shadowmmu.engine.arena.state import Request
from shadowmmu.engine.face.types import HostFault, TripleFault
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.second_level import BeyondNestedTables
from shadowmmu.hardware.walk import ADDRESS

_WALKS = Kind.ACCESS, Kind.EMULATED, Kind.RACE, Kind.MEANWHILE, Kind.INSTRUCTION
"""Operations that fault if the shadow is not there."""
ROOTS_WENT = int(Request.REQ_MMU_FREE_OBSOLETE_ROOTS)  # a plain number, as it is asked for after each operation


class Guest(HostOperations):
    """`do` performs one operation and returns its outcome in a word."""

    def __init__(self, setup: Setup, make_vm: Callable[..., Any]) -> None:
        super().__init__(setup, make_vm)
        self.generation = self.vm.generation
        self.obsolete = set[int]()
        """Tables that went with all others while a root slot held them."""
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
            self._host,
            self._meanwhile,
            self._smm,
            self._beyond,
            self._illegal,
            self._instruction,
            lambda op: "not without EPT",
            self._pkru,
        )
        for index in range(len(self.cpus)):
            self._start(index)

    def do(self, op: Op) -> str:
        """Perform `op`; raises a violation."""
        if self.hides_pdpte and op.kind in _WALKS and self._hides_pdpte(op.vcpu):
            return "a PDPTE is left out"
        try:
            outcome = self._perform[op.kind](op)
            if self.slots.absent and self.slots.arrivals():
                self.oracle.memory_changed()
            for vcpu in self.vm.vcpus:
                if vcpu.requests & ROOTS_WENT:
                    self._roots_went()
                    break
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
            self.oracle.memory_changed()  # the walk before it may have set A and D
            return "host fault"

    def _roots_went(self) -> None:
        """A root that is zapped by itself may lie below another vCPU's root, too: what is held by that way is not judged."""
        zapped = {page.hpa for page in self.vm.shadow_pages() if page.root_count and page.role & Role.INVALID}
        if self.vm.generation != self.generation:  # all were zapped, with a flush
            self.generation, self.obsolete = self.vm.generation, zapped
        self.obsolete &= zapped
        if zapped != self.obsolete:
            for cpu in self.cpus:
                cpu.flush()

    def _mark_refused(self, op: Op) -> bool:
        """A walk has to set A or D in a page that the host protects: Linux gives the guest a #PF instead."""
        tlb = self.oracle.vcpus[op.vcpu]
        if tlb.prediction is None or op.kind not in (Kind.ACCESS, Kind.EMULATED, Kind.MEANWHILE, Kind.INSTRUCTION):
            return False
        pages = {hpa >> 12 for hpa, *_ in tlb.present.entries()}
        gfns = (gfn for first, count, _, _ in self.slots.slots.values() for gfn in range(first, first + count))
        return any(self.slots.host_page(gfn) in self.slots.protected and (self.slots.host(gfn * PAGE) or 0) >> 12 in pages for gfn in gfns)

    def _hides_pdpte(self, index: int) -> bool:
        """A PDPTE of L1's with bits above its address was left out of the root, and a walk reads it still (docs/kernel-quirks.md)."""
        return any(at & ~ADDRESS for at in self._filled_from(index))

    def _triple_fault(self, op: Op, error: Exception) -> str:
        """Right if the root, or if a bare root is filled a table of a present PDPTE, is in no slot."""
        tlb = self.oracle.vcpus[op.vcpu]
        tables = [tlb.cr3 & ADDRESS, *self._filled_from(op.vcpu)]
        if all(self.slots.host(t) is not None for t in tables):
            raise Violation(f"vcpu {op.vcpu}: triple fault, but cr3 {tlb.cr3:#x} points to memory") from error
        return "triple fault"
