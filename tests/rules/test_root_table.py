# SPDX-License-Identifier: GPL-2.0-only
"""Every row of the root table: which root each kind of guest gets, in every design, on which host.

A guest's tables map one address to one page; the test takes one fault there and looks at the chain from the root
down to the level-2 page, then unloads the root and sees that nothing is left behind.
"""

from __future__ import annotations

import struct

import pytest
from designs import every_design
from root_table import ADDRESS, MODES, PAGE, ROOT, ROWS, Cr0, Row, chain, fault, start

from shadowmmu import Outcome, Vm
from shadowmmu.check.audit import audit


@every_design
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, roots: str) -> None:
    vm = start(row, roots)
    if MODES[row.mode].levels == 0 or (row.tdp and not row.nested):
        # Direct tables: put memory where the address points.
        vm.set_memslot(1, ADDRESS & ~0xFFF, 0x1000, hva=PAGE)
        vm.vcpus[0].enter()
    assert fault(vm, row) == Outcome.FIXED
    assert chain(vm) == row.chain(roots)
    assert audit(vm) == []
    leaf = PAGE
    assert vm.host_page(leaf) in {
        entry & 0x000FFFFFFFFFF000 for page in vm.shadow_pages() if page.level == 1 for entry in entries(vm, page.hpa)
    }
    if vm.vcpus[0].guest_mode:
        assert vm.vcpus[0].nested_vmexit()
    vm.vcpus[0].set_sregs(int(Cr0.PE), 0, 0, 0)
    assert vm.vcpus[0].root is None
    assert not [page for page in vm.shadow_pages() if page.special]
    assert audit(vm) == []


def test_row_14_a_host_with_a_four_level_npt_offers_no_la57() -> None:
    """Nor could it shadow the 5-level nested page table of such an L1. With EPT, L1 chooses its levels by EPTP alone."""
    la57 = MODES["5-level"]
    vcpu = Vm(memory_mib=8, host_levels=4, tdp=True).vcpus[0]
    assert not vcpu.set_sregs(la57.cr0, ROOT, la57.cr4, la57.efer)
    assert not vcpu.set_cr4(la57.cr4)
    for other in (Vm(memory_mib=8, host_levels=5, tdp=True), Vm(memory_mib=8, host_levels=4, tdp=True, vendor="vmx")):
        assert other.vcpus[0].set_cr4(la57.cr4)


def entries(vm: Vm, table: int) -> list[int]:
    return [value for (value,) in struct.iter_unpack("<Q", vm.read_host(table, 4096)) if value]


@every_design
@pytest.mark.parametrize("row", [row for row in ROWS if row.special.endswith("sn")], ids=lambda row: row.name)
def test_a_three_level_root_is_reachable_by_a_32_bit_cr3(row: Row, roots: str) -> None:
    """pae_root lies below 4 GiB when the hardware walks three levels, and anywhere else the table may lie above."""
    vm = start(row, roots)
    root, levels = vm.vcpus[0].root, vm.vcpus[0].levels[1]
    assert root is not None
    assert (root < 1 << 32) == (levels == 3)
