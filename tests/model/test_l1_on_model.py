# SPDX-License-Identifier: GPL-2.0-only
"""The life of a hypervisor, L1, on the model CPU: hosts of 4 and 5 levels, every mode of L1, every root design.

The machine's CPU back end walks four levels of nested tables, so this is where guests live on a 5-level host, below
special pages of levels 5, 4 and 3 (row 10 of the table in docs/special-pages.md) and below a passthrough root (row 12).

L1 runs an L2 without paging on two nested tables in turn and edits them between runs and under a running L2; the host
takes pages and memslots away. After each operation the whole MMU is audited, the virtual-TLB oracle judges each access
of L2, and what L2 and L1 read is compared with what was stored. The chain of the root is that of the table.
"""

from collections.abc import Callable

import pytest
from designs import every_design
from guest_tables import entries
from root_table import MODES, ROWS, chain

from shadowmmu import Vm
from shadowmmu.check.audit import audit
from shadowmmu.check.fuzz.operations import GUEST, HOST, HOST_PAGES, PAGE, SLOTS, USER_MIB, WATCHED
from shadowmmu.check.fuzz.slots import DirectMap, Slots
from shadowmmu.check.fuzz.stage import L2_UNPAGED
from shadowmmu.check.oracle.oracle import Oracle
from shadowmmu.hardware.cpu import AccessResult, Done, ModelCpu
from shadowmmu.hardware.host_memory import HostMemory
from shadowmmu.hardware.walk import PRESENT, USER, WRITE

LIVES = [(mode, host) for host in (4, 5) for mode in ("2-level", "pae", "4-level", "5-level") if host == 5 or mode != "5-level"]

# L2 physical pages; each is watched by the oracle.
FIRST, SECOND, THIRD, FAR, LARGE = 0x40000000, 0x40001000, 0x40007000, 0xC0001000, 0x200000
BEYOND = 0x8000001000
"""Above 4 GiB: only tables of 4 and 5 levels reach it."""

# Pages of L1's memory: data in slot 0, in slot 1 (which is deleted) and in slot 2 (a large page), behind that its tables.
DATA, OTHER, SPARE, ABSENT, LOST, LARGE_DATA, NESTED_TABLES = 8, 10, 12, 14, 70, 512, 1024


class NestedTables:
    """Nested tables that L1 makes, in the format of its own mode."""

    def __init__(self, l1: "Hypervisor") -> None:
        self.l1, self.levels = l1, MODES[l1.mode].levels
        self.bits, self.size = (10, 4) if self.levels == 2 else (9, 8)
        self.ncr3 = l1.new_table()
        self.tables = {(self.levels, 0): self.ncr3}
        """(level, what of an address lies above it) -> where the table is."""

    def place(self, address: int, level: int) -> int:
        """Where the entry of `level` for `address` lies; tables on the way are made."""
        above = address >> 12 + self.bits * level if level < self.levels else 0
        if (level, above) not in self.tables:
            table = self.tables[level, above] = self.l1.new_table()
            self.set(address, table // PAGE, level + 1)
        index = address >> 12 + self.bits * (level - 1) & (1 << self.bits) - 1
        return self.tables[level, above] + index * self.size

    def set(self, address: int, page: int | None, level: int = 1, *, writable: bool = True, large: bool = False) -> None:
        """Let the entry of `level` lead to a page of L1's memory, or (None) nowhere. PDPTEs have no rights."""
        rights = 1 if level == self.levels == 3 else 5 | writable << 1 | large << 7
        self.l1.store(self.place(address, level), 0 if page is None else page * PAGE | rights, self.size)


class Outside(DirectMap):
    """What may be seen of L1 mode, which has no tables of its own here: memory is where the memslots have it."""

    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None:
        if access & WRITE:
            super().completed(gva, access, ac, hpa)
        else:
            assert self.slots.host(gva) == hpa


class Hypervisor:
    """An L1 with two vCPUs, on a host with nested paging. Each operation ends with an audit."""

    def __init__(self, mode: str, host_levels: int, roots: str) -> None:
        self.mode = mode
        self.vm = Vm(
            memory_mib=0, user_mib=USER_MIB, vcpus=2, roots=roots, tdp=True, host_levels=host_levels,
            maxphyaddr=GUEST.maxphyaddr, host_maxphyaddr=HOST.maxphyaddr,
        )  # fmt: skip
        memory = HostMemory(self.vm.host_regions())
        self.slots = Slots(self.vm, memory, HOST_PAGES)
        for slot, (first, pages) in SLOTS.items():
            self.slots.set(slot, first, pages, 0)
        self.oracle = Oracle(self.slots, WATCHED, 2, GUEST)
        self.outside = Outside(self.slots, self.oracle)
        self.cpus = [ModelCpu(vcpu, memory, HOST, self.outside, None, host_levels) for vcpu in self.vm.vcpus]
        self.slots.find_zeroes((SLOTS[2][0] + SLOTS[2][1] - 2) * PAGE)
        self.tables_used = 0
        for vcpu in self.vm.vcpus:
            assert vcpu.set_sregs(MODES[mode].cr0, 0, MODES[mode].cr4, MODES[mode].efer)

    def checked(self) -> None:
        """The end of each operation."""
        if self.slots.absent and self.slots.arrivals():
            self.oracle.memory_changed()
        assert audit(self.vm) == [] and self.vm.bugs() == []

    def new_table(self) -> int:
        self.tables_used += 1
        return (NESTED_TABLES + self.tables_used) * PAGE

    def home(self) -> None:
        """Both vCPUs in L1 mode."""
        for index, vcpu in enumerate(self.vm.vcpus):
            if vcpu.guest_mode:
                self.vmexit(index)

    # --- in L1 mode

    def store(self, gpa: int, value: int, size: int = 8, *, vcpu: int = 1) -> None:
        """A store of L1: by vCPU 1, which never leaves L1 mode but where a test says so, or by vCPU 0 between runs."""
        assert not self.vm.vcpus[vcpu].guest_mode
        result = self.cpus[vcpu].access(gpa, WRITE | USER, False, size, value)
        assert result.how in (Done.COMPLETED, Done.EMULATED)
        self.checked()

    def load(self, gpa: int, *, vcpu: int = 1) -> int | None:
        assert not self.vm.vcpus[vcpu].guest_mode
        result = self.cpus[vcpu].access(gpa, USER, False, 8)
        self.checked()
        return result.value

    def invlpga(self, address: int, vcpu: int = 0) -> None:
        """INVLPGA: KVM does what it does for INVLPG in L1; what L2 had is flushed by VMRUN in any case."""
        self.vm.vcpus[vcpu].invlpg(address)
        self.checked()

    def vmrun(self, tables: NestedTables, vcpu: int = 0) -> None:
        """VMRUN, which flushes as with TLB_CONTROL 1 (KVM treats every switch between L1 and L2 so)."""
        mode = MODES[self.mode]
        assert self.vm.vcpus[vcpu].nested_vmrun(*L2_UNPAGED, ncr3=tables.ncr3)
        self.oracle.vcpus[vcpu].vmrun(mode.cr0, tables.ncr3, mode.cr4, mode.efer)
        self.cpus[vcpu].observer = self.oracle.vcpus[vcpu]
        self.checked()

    def vmexit(self, vcpu: int = 0) -> None:
        assert self.vm.vcpus[vcpu].nested_vmexit()
        self.cpus[vcpu].observer = self.outside
        self.checked()

    # --- in L2

    def access(self, address: int, value: int | None = None, vcpu: int = 0) -> AccessResult:
        """A load, or a store, of L2."""
        result = self.cpus[vcpu].access(address, USER if value is None else USER | WRITE, False, 8, value)
        self.checked()
        return result

    def reads(self, address: int, vcpu: int = 0) -> int | None:
        """What L2 reads where it meets no fault for L1."""
        result = self.access(address, vcpu=vcpu)
        assert result.how != Done.INJECTED, self.vm.vcpus[vcpu].exception
        return result.value

    def faults(self, address: int, value: int | None = None, vcpu: int = 0) -> int:
        """An access of L2 that is a nested fault for L1: its error code, low bits. L1 has the vCPU then."""
        assert self.access(address, value, vcpu).how == Done.INJECTED
        fault = self.vm.vcpus[vcpu].exception
        assert fault is not None and fault.nested and fault.cr2 == address
        self.vmexit(vcpu)
        return int(fault.error_code) & 7

    # --- what the host does

    def set_slot(self, slot: int, *, there: bool) -> None:
        """Make a memslot, or delete it: every shadow page is zapped."""
        first, pages = SLOTS[slot]
        self.slots.set(slot, first, pages if there else 0, 0)
        self.oracle.memory_changed()
        self.checked()

    def take_page(self, page: int) -> None:
        """The host takes a page away; it will be found full of zeroes."""
        self.vm.unmap_hva(page * PAGE, PAGE)
        self.slots.forget()
        self.slots.absent.add(page)
        self.oracle.memory_changed()
        self.checked()


def two_tables(l1: Hypervisor) -> tuple[NestedTables, NestedTables]:
    """Two nested tables that map the same addresses to other pages, but for FAR; each page holds its number."""
    for page in (DATA, OTHER, SPARE, ABSENT, LOST, LARGE_DATA):
        l1.store(page * PAGE, page)
    one, two = NestedTables(l1), NestedTables(l1)
    for tables, page in ((one, DATA), (two, OTHER)):
        tables.set(FIRST, page)
        tables.set(SECOND, page + 1)
        tables.set(FAR, SPARE)
    return one, two


def row(l1: Hypervisor) -> str:
    """The chain that the table of roots has for this L1, a letter a level."""
    levels, mode = l1.vm.host_levels, l1.mode
    (found,) = [r for r in ROWS if (r.mode, r.host_levels, r.nested, r.vendor) == (mode, levels, "npt", "svm")]
    return found.chain(l1.vm.roots)


def two_nested_tables_in_turn(l1: Hypervisor) -> None:
    """The same address of L2 is another page on each; what L2 stores, L1 finds, and the other way round."""
    both = two_tables(l1)
    for turn in range(3):
        for tables, page in zip(both, (DATA, OTHER), strict=True):
            l1.vmrun(tables)
            assert l1.reads(FIRST) == (page if not turn else page + turn - 1)
            assert l1.access(FIRST, page + turn).how == Done.COMPLETED
            assert l1.reads(FAR) == (SPARE if not turn else 900 + turn - 1)
            l1.vmexit()
            assert l1.load(page * PAGE, vcpu=0) == page + turn
        l1.store(SPARE * PAGE, 900 + turn, vcpu=0)
    l1.vmrun(both[0])
    assert (l1.reads(FIRST), l1.reads(FAR)) == (DATA + 2, 902)
    assert chain(l1.vm) == row(l1)


def remap_write_protect_and_unmap(l1: Hypervisor) -> None:
    """L1 edits a leaf in every way, with INVLPGA and VMRUN after it; each fault of L2 comes to L1 as it must."""
    tables, _ = two_tables(l1)
    l1.vmrun(tables)
    assert l1.reads(FIRST) == DATA
    l1.vmexit()
    tables.set(FIRST, SPARE)  # remapped
    l1.invlpga(FIRST)
    l1.vmrun(tables)
    assert l1.reads(FIRST) == SPARE and l1.access(FIRST, 1).how == Done.COMPLETED
    l1.vmexit()
    tables.set(FIRST, SPARE, writable=False)
    l1.vmrun(tables)
    assert l1.reads(FIRST) == 1
    assert l1.faults(FIRST, 2) == PRESENT | WRITE | USER
    assert l1.load(SPARE * PAGE) == 1
    tables.set(FIRST, SPARE)  # L1 gives the right back, as for dirty logging
    l1.vmrun(tables)
    assert l1.access(FIRST, 2).how == Done.COMPLETED
    l1.vmexit()
    tables.set(FIRST, None)
    l1.invlpga(FIRST)
    l1.vmrun(tables)
    assert l1.faults(FIRST) == USER and l1.load(SPARE * PAGE) == 2
    tables.set(FIRST, OTHER)  # found by demand
    l1.vmrun(tables)
    assert l1.reads(FIRST) == OTHER
    assert chain(l1.vm) == row(l1)


def edits_above_the_leaf(l1: Hypervisor) -> None:
    """A level-2 entry, then the top one (of a PAE L1 a PDPTE, which nothing protects), lead to the other's tables."""
    one, two = two_tables(l1)
    l1.vmrun(one)
    assert (l1.reads(FIRST), l1.reads(SECOND)) == (DATA, 0)
    l1.vmexit()
    for level in range(2, one.levels + 1):
        theirs, own = (tables.tables[level - 1, FIRST >> 12 + one.bits * (level - 1)] for tables in (two, one))
        one.set(FIRST, theirs // PAGE, level)
        l1.vmrun(one)
        assert l1.reads(FIRST) == OTHER, level
        l1.vmexit()
        one.set(FIRST, own // PAGE, level)
        l1.invlpga(FIRST)
        l1.vmrun(one)
        assert l1.reads(FIRST) == DATA, level
        l1.vmexit()
    one.set(FIRST, None, one.levels)
    l1.vmrun(one)
    assert l1.faults(FIRST) == USER


def large_pages_and_addresses_beyond_4_gib(l1: Hypervisor) -> None:
    """8-byte tables map 2 MB at once; a 32-bit L1 has no L2 memory beyond 4 GiB (H2), a 64-bit one has."""
    tables, _ = two_tables(l1)
    if tables.levels > 2:
        tables.set(LARGE, LARGE_DATA, 2, large=True)
    if tables.levels > 3:
        tables.set(BEYOND, OTHER)
    l1.vmrun(tables)
    assert l1.reads(FIRST) == DATA
    if tables.levels > 2:
        assert l1.reads(LARGE) == LARGE_DATA and l1.access(LARGE + 0x1000, 5).how == Done.COMPLETED
        l1.vmexit()
        assert l1.load((LARGE_DATA + 1) * PAGE) == 5
        tables.set(LARGE, None, 2)
        tables.set(LARGE, LARGE_DATA)  # split
        l1.vmrun(tables)
        assert l1.reads(LARGE) == LARGE_DATA and l1.faults(LARGE + 0x1000) == USER
        l1.vmrun(tables)
    if tables.levels > 3:
        assert l1.reads(BEYOND) == OTHER
    else:
        assert l1.faults(BEYOND) == USER


def edits_under_a_running_l2(l1: Hypervisor) -> None:
    """vCPU 1, in L1 mode, edits the tables that vCPU 0's L2 runs on, then runs one itself on the same tables."""
    tables, other = two_tables(l1)
    l1.vmrun(tables)
    assert l1.reads(FIRST) == DATA
    tables.set(FIRST, OTHER)  # L2 may see either page until it leaves
    assert l1.reads(FIRST) in (DATA, OTHER)
    tables.set(THIRD, SPARE)
    assert l1.reads(THIRD) == SPARE
    l1.vmrun(tables, vcpu=1)
    assert (l1.reads(FIRST, vcpu=1), l1.reads(THIRD, vcpu=1)) == (OTHER, SPARE)
    assert l1.access(THIRD, 7, vcpu=1).how == Done.COMPLETED and l1.reads(THIRD) == 7
    l1.vmexit(1)
    other.set(THIRD, None)
    l1.vmrun(other, vcpu=1)
    assert l1.faults(THIRD, vcpu=1) == USER
    l1.vmexit()
    l1.vmrun(tables)
    assert l1.reads(FIRST) == OTHER
    assert chain(l1.vm) == row(l1)


def a_memslot_deleted_while_l2_has_roots(l1: Hypervisor) -> None:
    """R11: one fast zap makes a special root obsolete, and the next entry frees it."""
    delete_memslots(l1, 1)


def a_memslot_deleted_twice_while_l2_has_roots(l1: Hypervisor) -> None:
    """R12: a special root that slept through two fast zaps is right again, and empty."""
    delete_memslots(l1, 2)


def delete_memslots(l1: Hypervisor, times: int) -> None:
    """Slot 1 is deleted, made and deleted while the vCPU is in L2 and does not run."""
    tables, _ = two_tables(l1)
    tables.set(THIRD, LOST)
    l1.vmrun(tables)
    assert (l1.reads(FIRST), l1.reads(THIRD)) == (DATA, LOST)
    specials = [page for page in l1.vm.shadow_pages() if page.special and page.owner == 0]
    assert len(specials) == row(l1).count("s")
    freed = l1.vm.counters()["special_freed"]
    for _ in range(times - 1):
        l1.set_slot(1, there=False)
        l1.set_slot(1, there=True)
    l1.set_slot(1, there=False)
    for page in specials:
        now = l1.vm.shadow_page(page.hpa)
        assert now is not None and now.obsolete == (times == 1)
        assert page.level > 3 or not any(entries(l1.vm, page))
    assert l1.reads(FIRST) == DATA
    assert l1.vm.counters()["special_freed"] - freed == (len(specials) if times == 1 else 0)
    lost = l1.access(THIRD)
    assert (lost.how, lost.value) == (Done.EMULATED, None)  # no memory there
    l1.set_slot(1, there=True)
    assert l1.reads(THIRD) == LOST
    assert chain(l1.vm) == row(l1)


def the_host_takes_a_page(l1: Hypervisor) -> None:
    """Every mapping of it is gone, L2's and L1's; zeroes come, then what is stored."""
    tables, _ = two_tables(l1)
    tables.set(THIRD, ABSENT)
    l1.vmrun(tables)
    assert l1.reads(THIRD) == ABSENT and l1.load(ABSENT * PAGE) == ABSENT
    l1.take_page(ABSENT)
    assert l1.reads(THIRD) == 0 and l1.load(ABSENT * PAGE) == 0
    assert l1.access(THIRD, 11).how == Done.COMPLETED
    assert l1.load(ABSENT * PAGE) == 11
    assert chain(l1.vm) == row(l1)


STEPS = (
    two_nested_tables_in_turn,
    remap_write_protect_and_unmap,
    edits_above_the_leaf,
    large_pages_and_addresses_beyond_4_gib,
    edits_under_a_running_l2,
    a_memslot_deleted_while_l2_has_roots,
    a_memslot_deleted_twice_while_l2_has_roots,
    the_host_takes_a_page,
)


@every_design
@pytest.mark.parametrize(("mode", "host_levels"), LIVES, ids=[f"{mode} L1 on a {levels}-level host" for mode, levels in LIVES])
class TestL1:
    """Each step in a VM of its own, then all of them one after the other in one."""

    @pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
    def test_step(self, step: Callable[[Hypervisor], None], mode: str, host_levels: int, roots: str) -> None:
        step(Hypervisor(mode, host_levels, roots))

    def test_life(self, mode: str, host_levels: int, roots: str) -> None:
        l1 = Hypervisor(mode, host_levels, roots)
        for step in STEPS:
            step(l1)
            l1.home()
        # The guest MMU of vCPU 0 has the last root of L2 still; that of vCPU 1 lost it at an entry to L1, after a fast zap.
        assert [page.owner for page in l1.vm.shadow_pages() if page.special] == [0] * row(l1).count("s")
