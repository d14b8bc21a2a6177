# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""The world of an episode: a host, a VM on it with two vCPUs, the CPUs that run them, the oracle that watches."""

from collections.abc import Callable
from random import Random
from typing import Any

from shadowmmu.check.fuzz.illegal import CR4_NOT_OFFERED
from shadowmmu.check.fuzz.operations import (
    ALIAS,
    ALIASED,
    FRAMES,
    GUEST,
    HOST,
    LARGE_FRAMES,
    LEVELS,
    NPT,
    NPT_REACH,
    PAGE,
    PAGING,
    REACH,
    SLOTS,
    TABLES,
    USER_MIB,
    WATCHED,
    Setup,
)
from shadowmmu.check.fuzz.sense import CR0_BASE, stands
from shadowmmu.check.fuzz.slots import Aliased, Slots, Untold, host_pages
from shadowmmu.check.oracle.agreement import Agreement
from shadowmmu.check.oracle.oracle import Oracle
from shadowmmu.engine.face.kernels import rules_of
from shadowmmu.hardware.cpu import ModelCpu
from shadowmmu.hardware.host_memory import HostMemory
from shadowmmu.hardware.walk import CR0_PG, CR4_LA57, CR4_PCIDE, EFER_LME, features_of

L2_UNPAGED = CR0_BASE, 0, 0, 0  # CR0, CR3, CR4, EFER of an L2 on nested tables, as it begins
REGISTER = {"CR0": 0, "CR3": 1, "CR4": 2, "EFER": 3}


def _guest_cpu(seed: int) -> dict[str, Any]:
    """What the guest's CPUID says otherwise than the host's CPU."""
    random = Random(f"guest's CPU {seed}")
    vendor = random.choice(("host", "host", "svm", "vmx"))
    return {"guest_vendor": vendor, "pages_1g": random.random() < 0.7, "cr4_reserved": CR4_NOT_OFFERED}


class Stage:
    """What all operations find."""

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
        self.pkru = [0, 0]  # rights of protection keys, which an L2 on nested tables may have
        self.emulated = [False, False]  # of each vCPU an access, since the memslots changed
        self.unmapped: list[int | None] = [None, None]  # the small page at which each vCPU last met what is no memory
        self.untold = Untold(self.slots, self.oracle)

    def _choose_host(self, random: Random) -> None:
        """Its paging, and the modes that a guest may have there."""
        self.hides_pdpte = "hides_pdpte" in rules_of(self.setup.kernel)
        plain, npt = ([mode for mode in self.setup.modes if mode in group] for group in (PAGING, NPT))
        self.nested = bool(npt) and (not plain or random.random() < 0.4)
        """A host with NPT; both vCPUs run an L2, and only nested tables are shadowed. L1 edits them by emulated stores."""
        least = min((LEVELS[mode] for mode in npt), default=4)
        self.host_levels = random.choice([levels for levels in (3, 4, 4, 5, 5) if levels >= least]) if self.nested else 4
        offered = [mode for mode in (npt if self.nested else plain) if not self.nested or LEVELS[mode] <= self.host_levels]
        self.modes = {mode: LEVELS[mode] for mode in offered}
        self.reach = NPT_REACH if self.nested else REACH
        self.smm = not self.nested and random.random() < 0.25
        """There is system-management mode. Its memslots are the others': only what is made of them is apart."""
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
        for first in LARGE_FRAMES[1:]:
            if random.random() < 0.6:
                self.vm.set_host_page_level(first * PAGE, 512 * PAGE, 2)

    def _make_cpus(self, random: Random) -> None:
        """The CPUs that run on the tables of each vCPU, and the oracle that judges them."""
        self.memory = HostMemory(self.vm.host_regions())
        self.slots = Slots(self.vm, self.memory, host_pages(self.setup.seed), tuple(range(2 if self.smm else 1)))
        self.alias = not self.smm and Random(f"aliases {self.setup.seed}").random() < 0.25
        """Two slots map the same host memory."""
        for slot, (first, pages) in (SLOTS | ({ALIAS: ALIASED} if self.alias else {})).items():
            self.slots.set(slot, first, pages, 0)
        self.oracle = Oracle(self.slots, WATCHED, 2, self.features)
        if self.alias:
            self.oracle.aliased = Aliased(self.slots)
        evict = random.choice((None, random))
        host = HOST._replace(amd=self.amd)
        npt_levels = self.host_levels if self.nested else 0
        self.cpus = [ModelCpu(v, self.memory, host, self.oracle.vcpus[i], evict, npt_levels) for i, v in enumerate(self.vm.vcpus)]
        for i, cpu in enumerate(self.cpus):
            Agreement(cpu, self.oracle.vcpus[i], self._unsync_below, WATCHED, self.reach)

    def _unsync_below(self, root: int) -> bool:
        """As the shadow page marks it; a bare root is none."""
        page = self.vm.shadow_page(root)
        return page is not None and page.unsync_children > 0

    def _fill_memory(self) -> None:
        """Data that differs everywhere; tables come later."""
        self.slots.find_zeroes((FRAMES - 2) * PAGE)
        for page in range(TABLES + 1, FRAMES):
            self.vm.write_guest(page * PAGE, (page * 0x1001).to_bytes(4, "little") * 1024)

    def registers(self, index: int) -> tuple[int, int, int, int]:
        """CR0, CR3, CR4, EFER; of a vCPU that runs on nested tables L1's, with nCR3."""
        tlb = self.oracle.vcpus[index]
        return tlb.cr0, tlb.cr3, tlb.cr4, tlb.efer

    def _stands(self, cr0: int, cr4: int, efer: int) -> bool:
        """Whether a guest can have these together. Nested paging offers no more levels than the host's own tables have."""
        levels = 5 if cr4 & CR4_LA57 else 4 if efer & EFER_LME else 0
        return stands(cr0, cr4, efer) and (levels <= self.host_levels if self.nested else not cr4 & CR4_NOT_OFFERED)

    def _nests(self, cr0: int, ncr3: int, cr4: int, efer: int) -> bool:
        """Whether an L1 with these can run an L2 on its tables: it has paging on, whose mode is theirs."""
        return bool(cr0 & CR0_PG) and not (ncr3 >> 63 or cr4 & CR4_PCIDE) and self._stands(cr0, cr4, efer)
