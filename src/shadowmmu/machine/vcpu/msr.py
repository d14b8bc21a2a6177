# SPDX-License-Identifier: GPL-2.0-only
"""Model-specific registers of one vCPU. A register or value that does not exist raises #GP(0). Source: APM vol. 2 appendix A."""

from typing import TYPE_CHECKING

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.memory.linear_memory import GuestFault, GuestMemory
from shadowmmu.machine.seam import MASK32, MASK64, State
from shadowmmu.machine.vcpu import register_msrs
from shadowmmu.machine.vcpu.apic_msrs import ApicMsrs
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.kept_msrs import KeptMsrs
from shadowmmu.machine.vcpu.svm_state import SvmState
from shadowmmu.x86.control import Efer
from shadowmmu.x86.msr import APIC_BASE, EFER, HWCR, TSC, TSC_AUX, UCODE_REVISION, VM_CR, VM_HSAVE_PA
from shadowmmu.x86.vectors import GP

if TYPE_CHECKING:
    from shadowmmu import Vcpu

PAT_RESET = 0x0007040600070406
EFER_OFFERED = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME
_VM_CR_KNOWN, VM_CR_LOCK, SVMDIS = 0x1F, 1 << 3, 1 << 4


class Msrs:
    """`cpuid` tells what the CPU offers, `svm` keeps what is switched between L1 and L2. `tsc` is the time-stamp counter now, which the
    machine keeps so that runs repeat exactly."""

    def __init__(self, vcpu: "Vcpu", memory: GuestMemory, number: int, cpuid: Cpuid, svm: SvmState, apic: LocalApic | None = None) -> None:
        self.vcpu = vcpu
        self._apic: ApicMsrs | None = None
        if apic is not None:
            self._apic = ApicMsrs(apic, svm, vcpu.vm.maxphyaddr, x2apic=cpuid.offers("x2apic"), deadline=cpuid.offers("tsc-deadline"))
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
        return self._values[index]

    @property
    def tsc_offset(self) -> int:
        return self._svm.tsc_offset

    def plain(self, index: int) -> ApicMsrs | KeptMsrs | None:
        """Who has one that the CPU does not go by; None: it is none."""
        if self._apic is not None and self._apic.has(index):
            return self._apic
        return self._kept if self._kept.has(index) else None

    def read(self, index: int, state: State, tsc: int) -> int:
        if index == EFER:
            return int(self.vcpu.efer)
        if index == TSC:
            return tsc + self.tsc_offset & MASK64
        if register_msrs.has(index):
            return register_msrs.read(self._svm, state, index)
        plain = self.plain(index)
        if plain is not None:
            if not plain.allows(index):
                raise GuestFault(GP)
            return plain.read(index)
        if index not in self._values:
            self.memory.unclaimed.msr(index, write=False)
            raise GuestFault(GP)
        return self[index]

    def write(self, index: int, value: int, state: State, tsc: int) -> None:
        """Changes `state` for what the CPU keeps."""
        plain = self.plain(index)
        if index == EFER:
            if value & ~self._efer_offered() or not self.vcpu.set_efer(value):
                raise GuestFault(GP)
        elif index == TSC:
            self._svm.tsc_offset = value - tsc
        elif register_msrs.has(index):
            if not register_msrs.write(self._svm, state, index, value):
                raise GuestFault(GP)
        elif plain is not None:
            if not (plain.allows(index, value) and plain.write(index, value)):
                raise GuestFault(GP)
        elif index in self._values:
            self._write_value(index, value)
        else:
            self.memory.unclaimed.msr(index, write=True)
            raise GuestFault(GP)

    def _efer_offered(self) -> int:
        offered = int(EFER_OFFERED)
        return offered if not self._values.get(VM_CR, SVMDIS) & SVMDIS else offered & ~int(Efer.SVME)

    def _write_value(self, index: int, value: int) -> None:
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
