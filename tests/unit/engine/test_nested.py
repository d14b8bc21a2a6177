# SPDX-License-Identifier: GPL-2.0-only
"""Nested guests: what the MMU does when L1 enters L2 and gets it back, and the hazards of the posted series there."""

from __future__ import annotations

import struct

import pytest
from designs import every_design

from shadowmmu import GuestTables, Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pferr import Pferr

ON = int(Cr0.PE | Cr0.PG | Cr0.WP)
LONG = {"cr0": ON, "cr4": int(Cr4.PAE), "efer": int(Efer.NXE | Efer.LME | Efer.LMA)}
PAE = {"cr0": ON, "cr4": int(Cr4.PAE), "efer": int(Efer.NXE)}
TWO_LEVEL = {"cr0": ON, "cr4": 0, "efer": 0}
NONPAGING = {"cr0": int(Cr0.PE), "cr4": 0, "efer": 0}
NPF_WRITE = int(Pferr.USER | Pferr.WRITE | Pferr.GUEST_FINAL)
ADDR = 0x000FFFFFFFFFF000


def put(vm: Vm, gpa: int, value: int) -> None:
    vm.write_guest(gpa, struct.pack("<Q", value))


def map_page(vm: Vm, format: str, root: int, page: int = 0x200000) -> None:
    """Tables at `root` that map address 0x5000."""
    GuestTables(vm, format, root).map(0x5000, page)


MODES = {"4-level": LONG, "pae": PAE, "2-level": TWO_LEVEL, "nonpaging": NONPAGING}


def kind(vm: Vm) -> str:
    """How the loaded root is made."""
    vcpu = vm.vcpus[0]
    assert vcpu.root is not None
    page = vm.shadow_page(vcpu.root)
    return "bare" if page is None else "special" if page.special else "normal"


@every_design
@pytest.mark.parametrize("l2", list(MODES))
@pytest.mark.parametrize("l1", ["4-level", "pae", "2-level"])
def test_h1_roots_are_freed_as_what_they_are_when_modes_change_across_vmrun(l1: str, l2: str, roots: str) -> None:
    """H1, nested paging off: roles are taken before the root is switched.

    The posted series asks the MMU's new mode whether the old root is special, and then frees a hashed page as a
    special one, or keeps a special one in prev_roots. Here the root's own page is asked.
    """
    vm = Vm(memory_mib=8, roots=roots)
    vcpu = vm.vcpus[0]
    regs1, regs2 = MODES[l1], MODES[l2]
    map_page(vm, l1, 0x10000)
    if l2 != "nonpaging":
        map_page(vm, l2, 0x20000)
    assert vcpu.set_sregs(cr3=0x10000, **regs1)
    for turn in range(4):
        vcpu.enter()
        assert vcpu.page_fault(0x5000, 2) in (Outcome.FIXED, Outcome.SPURIOUS)
        assert (kind(vm) == "normal") == (l1 == "4-level")
        assert vcpu.nested_vmrun(cr3=0x20000, **regs2)
        vcpu.enter()
        assert vcpu.page_fault(0x5000, 2) in (Outcome.FIXED, Outcome.SPURIOUS)
        assert (kind(vm) == "normal") == (l2 == "4-level")
        assert audit(vm) == [], turn
        assert all(not vm.shadow_page(hpa).special for _, hpa in vcpu.prev_roots)  # type: ignore[union-attr]
        came_back = vcpu.nested_vmexit()
        assert audit(vm) == [], turn
        # Linux 6.1 gives a 2-level L1 the CR4 of a nonpaging L2, with PAE: its CR3 is no PDPT (docs/kernel-quirks.md).
        assert came_back == (l1 != "2-level" or l2 != "nonpaging")
        if not came_back:
            return
    assert sum(page.special for page in vm.shadow_pages()) <= 1


@pytest.mark.parametrize("host_levels", [4, 5])
@every_design
@pytest.mark.parametrize("address", [0x1_0000_5000, 0x1_4000_5000, 0x80_0000_5000, 0x1_0000_0000_5000])
def test_h2_an_address_beyond_4_gib_is_l1s_fault(address: int, roots: str, host_levels: int) -> None:
    """H2: a 32-bit L1's NPT reaches 4 GiB, the special level-3 page has 512 entries.

    The posted series fills entries beyond the fourth and never unlinks them. Here no walk gets that far: L1 is told
    of a not-present nested fault.
    """
    vm = Vm(memory_mib=8, roots=roots, tdp=True, host_levels=host_levels)
    vcpu = vm.vcpus[0]
    map_page(vm, "pae", 0x20000)
    assert vcpu.set_sregs(cr3=0, **PAE)
    assert vcpu.nested_vmrun(cr0=1, cr3=0, cr4=0, efer=0, ncr3=0x20000)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, NPF_WRITE) == Outcome.FIXED
    assert vcpu.page_fault(address, NPF_WRITE) == Outcome.INJECT
    assert vcpu.exception is not None
    assert vcpu.exception.nested and vcpu.exception.cr2 == address and not vcpu.exception.error_code & Pferr.PRESENT
    for page in vm.shadow_pages():
        if page.special:
            words = struct.unpack("<512Q", vm.read_host(page.hpa, 4096))
            assert set(words[4 if page.level == 3 else 1 :]) == {vm.nothing_in(page.hpa)}
    assert audit(vm) == []


@pytest.mark.parametrize("host_levels", [4, 5])
def test_h4_a_pdpte_changed_under_a_special_page_is_noticed(host_levels: int) -> None:
    """H4: L1's PDPT is not write-protected, and nested walks read it each time.

    The posted series reuses the present PDPTE's child and fills the wrong level-2 page; its fix drops the entry as
    if it were a leaf, leaving a stale parent pointer. Here the child is unlinked because its gfn is not the one
    asked for, and zapped, as pages of L2 without a parent are; remote TLBs are flushed, and the right page is linked.
    """
    vm = Vm(memory_mib=8, tdp=True, host_levels=host_levels)
    vcpu = vm.vcpus[0]
    map_page(vm, "pae", 0x20000, page=0x200000)
    map_page(vm, "pae", 0x30000, page=0x300000)
    assert vcpu.set_sregs(cr3=0, **PAE)
    assert vcpu.nested_vmrun(cr0=1, cr3=0, cr4=0, efer=0, ncr3=0x20000)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, NPF_WRITE) == Outcome.FIXED
    old = [page for page in vm.shadow_pages() if page.gfn == 0x21 and page.level == 2]
    assert len(old) == 1 and len(old[0].parents) == 1
    put(vm, 0x20000, 0x31000 | 1)  # L1 moves the directory, with no exit
    assert vcpu.page_fault(0x5000, NPF_WRITE) == Outcome.FIXED
    assert vcpu.enter().flush_all
    pages = {(page.gfn, page.level): page for page in vm.shadow_pages() if not page.special}
    assert (0x21, 2) not in pages and len(pages[0x31, 2].parents) == 1
    leaf = pages[0x32, 1]
    assert vm.read_host_u64(leaf.hpa + 5 * 8) & ADDR == vm.host_page(0x300000)
    assert audit(vm) == []


def test_roots_of_l2_are_kept_across_vmexit_and_found_again() -> None:
    """A 64-bit L1's nested root stays in guest_mmu; five roots in turn use the three previous slots."""
    vm = Vm(memory_mib=8, tdp=True)
    vcpu = vm.vcpus[0]
    ncr3s = [0x20000 + i * 0x10000 for i in range(5)]
    for ncr3 in ncr3s:
        map_page(vm, "4-level", ncr3)
    assert vcpu.set_sregs(cr3=0, **LONG)
    vm.start_trace()
    made = []
    for ncr3 in [*ncr3s[:4], *ncr3s[:4], ncr3s[4]]:
        assert vcpu.nested_vmrun(cr0=1, cr3=0, cr4=0, efer=0, ncr3=ncr3)
        vcpu.enter()
        made.append(vcpu.root)
        assert audit(vm) == []
        assert vcpu.nested_vmexit()
        vcpu.enter()
    assert made[:4] == made[4:8]
    assert len(set(made[:4])) == 4


@every_design
def test_what_goes_with_a_recycled_nested_page_is_not_counted(roots: str) -> None:
    """mmu_page_zap_pte hands a bool up as a number: a directory's 70 tables count for nothing, and recycling goes on."""
    vm = Vm(memory_mib=8, tdp=True, roots=roots, shadow_pages=100)
    vcpu = vm.vcpus[0]
    root, tables, number = 0x20000, 0x100000, 70
    for level in range(2):
        put(vm, root + level * 0x1000, root + (level + 1) * 0x1000 | 7)
    for i in range(number):
        put(vm, root + 0x2000 + i * 8, tables + i * 0x1000 | 7)
        put(vm, tables + i * 0x1000, 0x200000 | 7)
    assert vcpu.set_sregs(cr3=0, **LONG)
    assert vcpu.nested_vmrun(cr0=1, cr3=0, cr4=0, efer=0, ncr3=root)
    vcpu.enter()
    for i in range(number):
        assert vcpu.page_fault(i << 21, NPF_WRITE) is Outcome.FIXED
    before = vm.counters()
    vm.set_shadow_pages(64)  # the oldest page that is no root is the one below the nested root
    after = vm.counters()
    assert before["n_used_mmu_pages"] - after["n_used_mmu_pages"] == number + 2
    assert after["mmu_recycled"] == 2  # itself, and its directory as True
    assert audit(vm) == [] and vm.bugs() == []


def test_a_nested_fault_names_the_level_it_came_from() -> None:
    """L2's own paging is walked through L1's NPT: a hole in the NPT is L1's fault, a hole in L2's tables is L2's."""
    vm = Vm(memory_mib=8, tdp=True)
    vcpu = vm.vcpus[0]
    root = 0x20000
    map_page(vm, "4-level", root)
    npt_leaf = root + 0x3000
    put(vm, npt_leaf + 0x40 * 8, 0x40000 | 7)  # L2's tables at L2 physical 0x40000
    put(vm, npt_leaf + 0x41 * 8, 0x41000 | 7)
    vm.write_guest(0x40000, struct.pack("<I", 0x41000 | 7))
    vm.write_guest(0x41000 + 5 * 4, struct.pack("<I", 0x5000 | 7))
    vm.write_guest(0x41000 + 6 * 4, struct.pack("<I", 0x66000 | 7))  # L2 maps it, L1 does not
    assert vcpu.set_sregs(cr3=0, **LONG)
    assert vcpu.nested_vmrun(cr3=0x40000, ncr3=root, **TWO_LEVEL)
    vcpu.enter()
    assert vcpu.gva_to_gpa(0x5000, 0) == 0x200000
    assert vcpu.gva_to_gpa(0x6000, 0) is None
    assert vcpu.exception is not None and vcpu.exception.nested and vcpu.exception.cr2 == 0x66000
    assert vcpu.gva_to_gpa(0x7000, 0) is None
    assert not vcpu.exception.nested and vcpu.exception.cr2 == 0x7000


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("smep", [0, int(Cr4.SMEP)])
@pytest.mark.parametrize("nx", [0, int(Efer.NXE)])
def test_a_nested_fault_tells_of_a_fetch_if_l1_has_nx_or_smep(kernel: str, smep: int, nx: int) -> None:
    """Also where SMEP means nothing else for L1's nested tables, as in 7.3."""
    vm = Vm(memory_mib=8, tdp=True, kernel=kernel)
    vcpu = vm.vcpus[0]
    map_page(vm, "4-level", 0x20000)
    assert vcpu.set_sregs(cr0=ON, cr3=0, cr4=int(Cr4.PAE) | smep, efer=int(Efer.LME | Efer.LMA) | nx)
    assert vcpu.nested_vmrun(cr3=0, ncr3=0x20000, **NONPAGING)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, int(Pferr.FETCH | Pferr.USER)) == Outcome.FIXED, "of a user page, too"
    assert vcpu.page_fault(0x6000, int(Pferr.FETCH | Pferr.USER)) == Outcome.INJECT
    assert vcpu.exception is not None and vcpu.exception.nested
    assert bool(vcpu.exception.error_code & Pferr.FETCH) == bool(smep or nx)
    assert audit(vm) == []


def test_ept_without_a_bits_takes_the_rights_of_what_was_in_use() -> None:
    """What the host looks at (kvm_age_gfn) is then access-tracked, and gets its rights back by the next access."""
    vm = Vm(memory_mib=8, tdp=True, vendor="vmx")
    vcpu = vm.vcpus[0]
    map_page(vm, "4-level", 0x20000)
    put(vm, 0x23000 + 5 * 8, 0x200000 | 7 | 6 << 3)
    assert vcpu.set_sregs(cr3=0, **LONG)
    assert vcpu.nested_vmentry(cr0=1, cr3=0, cr4=0, efer=0, eptp=0x20000 | 6 | 3 << 3)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, int(Pferr.WRITE)) == Outcome.FIXED
    (sptep,) = vm.rmap(0x200000, 1)
    entry = vm.read_host_u64(sptep)
    assert entry & 7 == 7 and vm.age_hva(0x200000, 0x1000)
    assert not vm.read_host_u64(sptep) & 7 and not vm.age_hva(0x200000, 0x1000)
    assert vcpu.page_fault(0x5000, int(Pferr.WRITE)) == Outcome.FIXED
    assert vm.read_host_u64(sptep) == entry
    assert audit(vm) == []


def test_ept_execute_only_and_its_faults() -> None:
    """Shadow EPT: a page that may only be fetched from, and the exit qualification of what is refused."""
    vm = Vm(memory_mib=8, tdp=True, vendor="vmx")
    vcpu = vm.vcpus[0]
    map_page(vm, "4-level", 0x20000)
    put(vm, 0x23000 + 5 * 8, 0x200000 | 4 | 6 << 3)
    assert vcpu.set_sregs(cr3=0, **LONG)
    assert vcpu.nested_vmentry(cr0=1, cr3=0, cr4=0, efer=0, eptp=0x20000 | 6 | 3 << 3 | 1 << 6)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, int(Pferr.FETCH)) == Outcome.FIXED
    assert vcpu.page_fault(0x5000, int(Pferr.WRITE)) == Outcome.INJECT
    assert vcpu.exception is not None and vcpu.exception.nested
    assert vcpu.exception.exit_qualification == 2 | 4 << 3
    put(vm, 0x23000 + 6 * 8, 0x200000 | 2 | 6 << 3)  # write-only: a misconfiguration
    assert vcpu.page_fault(0x6000, int(Pferr.WRITE)) == Outcome.INJECT
    assert vcpu.exception.error_code & Pferr.RSVD
    assert audit(vm) == []


@every_design
def test_sce_behind_a_refused_vmrun_is_nothing_to_the_mmu(roots: str) -> None:
    """L1's root stays until its #VMEXIT, and the audit knows."""
    vm = Vm(memory_mib=4, roots=roots)
    vcpu = vm.vcpus[0]
    vcpu.enter()
    assert vcpu.page_fault(0, 0) is Outcome.FIXED
    assert not vcpu.nested_vmrun(0x10, 0, 0, 0, 0x1000)
    assert audit(vm) == []
    assert vcpu.set_efer(1) and audit(vm) == []
