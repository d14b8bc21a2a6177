# SPDX-License-Identifier: GPL-2.0-only
"""The control registers that the hardware really runs with, while the guest believes in its own."""

from typing import TYPE_CHECKING

from shadowmmu.machine.seam import Controls, CpuError
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pte import Pte

if TYPE_CHECKING:
    from shadowmmu import Entry, Vcpu

# Plain integers: an enumeration's operators are too slow for every entry.
_PG, _LMA, _LME, _LA57 = int(Cr0.PG), int(Efer.LMA), int(Efer.LME), int(Cr4.LA57)
_CR0_SET, _CR0_CLEAR = int(Cr0.PG | Cr0.WP), int(Cr0.CD | Cr0.NW)
_CR4_SET, _EFER_SET = int(Cr4.PAE | Cr4.MCE), int(Efer.NXE | Efer.SVME)
_MCE, _PCIDE, _SVME = int(Cr4.MCE), int(Cr4.PCIDE), int(Efer.SVME)
_PAGE_RIGHTS = int(Cr4.SMEP | Cr4.SMAP | Cr4.PKE)
_NESTED_LEVELS = 4
_P, _A, _FRAME = int(Pte.PRESENT), int(Pte.ACCESSED), 0x000F_FFFF_FFFF_F000


def real_controls(vcpu: "Vcpu", entry: "Entry") -> Controls:
    """What the hardware runs with on the tables of `entry`, shadow tables or nested ones."""
    if vcpu.vm.tdp:
        return _on_nested_tables(vcpu, entry.root if entry.level == _NESTED_LEVELS else _below_five(vcpu, entry))
    level = 3 if not vcpu.efer & _LMA else 5 if vcpu.cr4 & _LA57 else 4
    if entry.level != level:
        raise CpuError(f"the engine gives a root of level {entry.level} where the hardware walks {level}; report this as a bug")
    return on_shadow_tables(vcpu, entry.root)


def _below_five(vcpu: "Vcpu", entry: "Entry") -> int:
    """This CPU walks four levels of nested tables. Its addresses have not more bits, so of a fifth only the first entry can be used,
    and the step through it is taken here. An entry that leads nowhere has an empty table behind it: itself, whose others are unused.
    """
    first = vcpu.vm.read_host_u64(entry.root)
    if not first & _P:
        return entry.root
    if not first & _A:
        vcpu.vm.write_host(entry.root, (first | _A).to_bytes(8, "little"))
    return int(first & _FRAME)


def _on_nested_tables(vcpu: "Vcpu", root: int) -> Controls:
    """The CPU walks the guest's tables as the guest's registers say."""
    return Controls(vcpu.cr0 & ~_CR0_CLEAR, vcpu.cr3, vcpu.cr4 | _MCE, vcpu.efer | _SVME, root)


def on_shadow_tables(vcpu: "Vcpu", root: int) -> Controls:
    """As KVM does: paging, WP, PAE and NXE always; caches never off; no SMEP or SMAP on a guest without paging, whose
    shadow maps everything for users; long mode only once it is active. PCIDs are the guest's alone: this CPU has none."""
    cr0, cr4, efer = vcpu.cr0, vcpu.cr4, vcpu.efer
    if not cr0 & _PG:
        cr4 &= ~_PAGE_RIGHTS
    if not efer & _LMA:
        efer &= ~_LME
    return Controls((cr0 | _CR0_SET) & ~_CR0_CLEAR, root, cr4 & ~_PCIDE | _CR4_SET, efer | _EFER_SET)
