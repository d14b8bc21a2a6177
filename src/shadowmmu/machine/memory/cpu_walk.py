# SPDX-License-Identifier: GPL-2.0-only
"""The CPU's own walk for an address through the tables it runs on. A and D are set on the way, as it sets them."""

from typing import TYPE_CHECKING

from shadowmmu.machine.memory.nested_tables import NestedTables
from shadowmmu.machine.memory.shadow_tables import ShadowTables

if TYPE_CHECKING:
    from shadowmmu import Vcpu


def tables_of(vcpu: "Vcpu") -> ShadowTables | NestedTables:
    """What the CPU of this vCPU walks."""
    return NestedTables(vcpu) if vcpu.vm.tdp else ShadowTables(vcpu)
