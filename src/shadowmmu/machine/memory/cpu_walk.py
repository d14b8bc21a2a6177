"""The CPU's own walk for an address through the tables it runs on. A and D are set on the way, as it sets them.

Accesses are data; all but a CPL 3 stack's are a supervisor's. Each walk gives the host physical address, or the
complement (~) of a #PF's error code.
"""

from typing import TYPE_CHECKING

from shadowmmu.hardware.walk import Features, Npt, paging, walk, walk_two_dimensions
from shadowmmu.machine.memory.guest_tables import paging_of
from shadowmmu.machine.memory.linear_memory import SYSTEM, USER, WRITE
from shadowmmu.machine.real_controls import on_shadow_tables
from shadowmmu.x86.control import Cr0, Cr4, Efer

if TYPE_CHECKING:
    from shadowmmu import Vcpu, Vm

_LONG_MODE = int(Cr0.PG), int(Cr4.PAE), int(Efer.LME | Efer.NXE)
"""The paging of nested tables with four levels."""


def walk_shadow_tables(vcpu: "Vcpu", gva: int, access: int) -> int:
    """The #PF, if any, is an exit."""
    root = vcpu.root
    if root is None:
        return ~(access & (WRITE | USER))
    real = on_shadow_tables(vcpu, root)
    mode = paging(real.cr0, real.cr4, real.efer, Features(maxphyaddr=vcpu.vm.host_maxphyaddr))
    memory = _HostMemory(vcpu.vm)
    found = walk(mode, memory.read, root, gva, access & (WRITE | USER), _lifts_smap(vcpu, access), write=memory.write)
    return ~found if isinstance(found, int) else found.address(gva)


def walk_nested_tables(vcpu: "Vcpu", gva: int, access: int) -> int:
    """The #PF, if any, is the guest's own; raises SecondLevelFault where the nested tables end the walk."""
    memory = _HostMemory(vcpu.vm)
    mode = paging(*_LONG_MODE, Features(maxphyaddr=vcpu.vm.host_maxphyaddr))
    nested = Npt(mode, memory.read, memory.write, vcpu.root)
    found = walk_two_dimensions(paging_of(vcpu), nested, vcpu.cr3, gva, access & (WRITE | USER), _lifts_smap(vcpu, access))
    return ~found if isinstance(found, int) else found[1]


def _lifts_smap(vcpu: "Vcpu", access: int) -> bool:
    """EFLAGS.AC lets a supervisor into user pages, but for accesses to GDT, IDT and TSS."""
    return bool(vcpu.ac) and not access & SYSTEM


class _HostMemory:
    """As a walk wants it."""

    def __init__(self, vm: "Vm") -> None:
        self._vm = vm

    def read(self, hpa: int, size: int) -> int:
        return int.from_bytes(self._vm.read_host(hpa, size), "little")

    def write(self, hpa: int, size: int, value: int) -> None:
        self._vm.write_host(hpa, value.to_bytes(size, "little"))
