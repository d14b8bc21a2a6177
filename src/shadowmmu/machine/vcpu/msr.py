# SPDX-License-Identifier: GPL-2.0-only
"""Model-specific registers of one vCPU. A register or value that does not exist raises #GP(0). Source: APM vol. 2 appendix A."""

from typing import TYPE_CHECKING, Any

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.memory.linear_memory import GuestFault, GuestMemory
from shadowmmu.machine.seam import MASK32, MASK64, Seg, State
from shadowmmu.machine.vcpu.apic_msrs import ApicMsrs
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.kept_msrs import KeptMsrs
from shadowmmu.machine.vcpu.l2_control import is_pat
from shadowmmu.machine.vcpu.svm_state import SvmState
from shadowmmu.x86.control import Efer
from shadowmmu.x86.msr import (
    APIC_BASE,
    CSTAR,
    EFER,
    FS_BASE,
    GS_BASE,
    HWCR,
    KERNEL_GS_BASE,
    LSTAR,
    PAT,
    SFMASK,
    STAR,
    SYSENTER_CS,
    SYSENTER_EIP,
    SYSENTER_ESP,
    TSC,
    TSC_AUX,
    UCODE_REVISION,
    VM_CR,
    VM_HSAVE_PA,
)
from shadowmmu.x86.vectors import GP

if TYPE_CHECKING:
    from shadowmmu import Vcpu

PAT_RESET = 0x0007040600070406
EFER_OFFERED = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME
_VM_CR_KNOWN, VM_CR_LOCK, SVMDIS = 0x1F, 1 << 3, 1 << 4
_ADDRESSES = frozenset((LSTAR, CSTAR, SYSENTER_ESP, SYSENTER_EIP, FS_BASE, GS_BASE, KERNEL_GS_BASE))
"""Registers that hold a linear address, which must be canonical."""
_SYSTEM_FIELDS = {
    STAR: "star",
    SYSENTER_CS: "sysenter_cs",
    SYSENTER_ESP: "sysenter_esp",
    SYSENTER_EIP: "sysenter_eip",
    KERNEL_GS_BASE: "kernel_gs_base",
}
"""Registers the CPU uses by itself."""
_SWITCHED = {PAT: "pat", LSTAR: "lstar", CSTAR: "cstar", SFMASK: "sfmask"}
"""Registers that are another guest's after VMRUN, VMLOAD or #VMEXIT."""


class Msrs:
    """`cpuid` tells what the CPU offers, `svm` keeps what is switched between L1 and L2. `tsc` is the time-stamp counter now, which the
    machine keeps so that runs repeat exactly."""

    def __init__(self, vcpu: "Vcpu", memory: GuestMemory, number: int, cpuid: Cpuid, svm: SvmState, apic: LocalApic | None = None) -> None:
        self.vcpu = vcpu
        self._apic: ApicMsrs | None = None
        if apic is not None:
            self._apic = ApicMsrs(apic, vcpu.vm.maxphyaddr, x2apic=cpuid.offers("x2apic"), deadline=cpuid.offers("tsc-deadline"))
        self.memory = memory
        self._kept = KeptMsrs()
        self._svm = svm
        bootstrap = 0x100 if number == 0 else 0
        self._values = {
            APIC_BASE: 0xFEE00000 | bootstrap,
            UCODE_REVISION: 0,
            TSC_AUX: number,
            HWCR: 0,
        }
        if cpuid.offers("svm"):
            self._values |= {VM_CR: 0, VM_HSAVE_PA: 0}

    def __getitem__(self, index: int) -> int:
        """One of those that the machine keeps."""
        if index in _SWITCHED:
            value: int = getattr(self._svm, _SWITCHED[index])
            return value
        return self._values[index]

    @property
    def tsc_offset(self) -> int:
        return self._svm.tsc_offset

    def read(self, index: int, state: State, tsc: int) -> int:
        system = state.system
        if index == EFER:
            return int(self.vcpu.efer)
        if index == TSC:
            return tsc + self.tsc_offset & MASK64
        if index in (FS_BASE, GS_BASE):
            return system.segments[Seg.FS if index == FS_BASE else Seg.GS].base
        if self._apic is not None and self._apic.has(index):
            return self._apic.read(index)
        if index in _SYSTEM_FIELDS:
            value: int = getattr(system, _SYSTEM_FIELDS[index])
            return value
        if self._kept.has(index):
            return self._kept.read(index)
        if index not in self._values and index not in _SWITCHED:
            self.memory.unclaimed.msr(index, write=False)
            raise GuestFault(GP)
        return self[index]

    def write(self, index: int, value: int, state: State, tsc: int) -> None:
        """Changes `state` for what the CPU keeps."""
        if index in _ADDRESSES and not self.memory.can_be_base(value):
            raise GuestFault(GP)
        if index == EFER:
            if value & ~self._efer_offered() or not self.vcpu.set_efer(value):
                raise GuestFault(GP)
        elif index == TSC:
            self._svm.tsc_offset = value - tsc
        elif index in (FS_BASE, GS_BASE):
            which = Seg.FS if index == FS_BASE else Seg.GS
            state.set_segments({which: state.system.segments[which]._replace(base=value)})
        elif self._apic is not None and self._apic.has(index):
            self._apic.write(index, value, self.tsc_offset)
        elif index in _SYSTEM_FIELDS:
            change: dict[str, Any] = {_SYSTEM_FIELDS[index]: value & MASK32 if index == SYSENTER_CS else value}
            state.system = state.system._replace(**change)
        elif index in _SWITCHED:
            self._write_switched(index, value)
        elif index in self._values:
            self._write_plain(index, value)
        elif self._kept.has(index):
            self._kept.write(index, value)
        else:
            self.memory.unclaimed.msr(index, write=True)
            raise GuestFault(GP)

    def _efer_offered(self) -> int:
        offered = int(EFER_OFFERED)
        return offered if not self._values.get(VM_CR, SVMDIS) & SVMDIS else offered & ~int(Efer.SVME)

    def _write_switched(self, index: int, value: int) -> None:
        if index == PAT and not is_pat(value):
            raise GuestFault(GP)
        setattr(self._svm, _SWITCHED[index], value & MASK32 if index == SFMASK else value)

    def _write_plain(self, index: int, value: int) -> None:
        if index == UCODE_REVISION:
            raise GuestFault(GP)
        if index == VM_CR:
            value = self._checked_vm_cr(value)
        if index == VM_HSAVE_PA and (value & 0xFFF or value >> self.vcpu.vm.maxphyaddr):
            raise GuestFault(GP)
        self._values[index] = value & MASK32 if index == TSC_AUX else value

    def _checked_vm_cr(self, value: int) -> int:
        """VM_CR: LOCK keeps itself and SVMDIS as they are; AMD-V cannot be disabled while it is on. APM vol. 2 section 15.30.1."""
        old = self._values[VM_CR]
        if value & ~_VM_CR_KNOWN or (value & SVMDIS and self.vcpu.efer & Efer.SVME):
            raise GuestFault(GP)
        kept = VM_CR_LOCK | SVMDIS if old & VM_CR_LOCK else 0
        return value & ~kept | old & kept
