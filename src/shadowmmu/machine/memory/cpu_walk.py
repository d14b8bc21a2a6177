# SPDX-License-Identifier: GPL-2.0-only
"""The CPU's own walk for an address through the tables it runs on. A and D are set on the way, as it sets them.

Each walk gives the host physical address, or the complement (~) of a #PF's error code.
"""

from typing import TYPE_CHECKING

from shadowmmu.hardware.second_level import Npt, walk_two_dimensions
from shadowmmu.hardware.walk import Features, paging
from shadowmmu.machine.memory.guest_tables import paging_of
from shadowmmu.machine.memory.linear_memory import FETCH, SYSTEM, USER, WRITE
from shadowmmu.machine.memory.shadow_tables import ShadowTables
from shadowmmu.x86.control import Cr0, Cr4, Efer

if TYPE_CHECKING:
    from shadowmmu import Vcpu

_LONG_MODE = {levels: (int(Cr0.PG), int(cr4), int(Efer.LME | Efer.NXE)) for levels, cr4 in ((4, Cr4.PAE), (5, Cr4.PAE | Cr4.LA57))}
"""The paging of nested tables, by their levels: the host's own."""
_KINDS = WRITE | USER | FETCH


class NestedTables:
    """Those that one vCPU runs on, with the guest's own above them."""

    def __init__(self, vcpu: "Vcpu") -> None:
        self._vcpu = vcpu
        self._mode = paging(*_LONG_MODE[vcpu.vm.host_levels], Features(maxphyaddr=vcpu.vm.host_maxphyaddr))

    def walk(self, gva: int, access: int) -> int:
        """The #PF, if any, is the guest's own; raises SecondLevelFault where the nested tables end the walk."""
        vcpu, root = self._vcpu, self._vcpu.root
        assert root is not None
        nested = Npt(self._mode, self._read, self._write, root)
        found = walk_two_dimensions(paging_of(vcpu), nested, vcpu.cr3, gva, access & _KINDS, _lifts_smap(vcpu, access))
        return ~found if isinstance(found, int) else found[1]

    def _read(self, hpa: int, size: int) -> int:
        return int.from_bytes(self._vcpu.vm.read_host(hpa, size), "little")

    def _write(self, hpa: int, size: int, value: int) -> None:
        self._vcpu.vm.write_host(hpa, value.to_bytes(size, "little"))


def _lifts_smap(vcpu: "Vcpu", access: int) -> bool:
    """EFLAGS.AC lets a supervisor into user pages, but for accesses to GDT, IDT and TSS."""
    return bool(vcpu.ac) and not access & SYSTEM


def tables_of(vcpu: "Vcpu") -> ShadowTables | NestedTables:
    """What the CPU of this vCPU walks."""
    return NestedTables(vcpu) if vcpu.vm.tdp else ShadowTables(vcpu)
