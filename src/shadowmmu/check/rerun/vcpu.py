# SPDX-License-Identifier: GPL-2.0-only
"""The vCPU of a rerun: the machine's, on the captured CPU, reading and writing guest memory as KVM and that CPU do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shadowmmu import Vcpu
from shadowmmu.check.rerun.captured_cpu import ACCESSED_PDPTE, CapturedCpu
from shadowmmu.check.rerun.kvm_witness import KvmWitness, Listener
from shadowmmu.check.rerun.memory import EmulatorMemory, FetchedCode
from shadowmmu.check.rerun.pdptes import Pdptes
from shadowmmu.machine.emulator.decode import Fetcher
from shadowmmu.machine.exits.control_registers import WRITERS, RegisterWrite, write_control
from shadowmmu.machine.exits.handlers import HANDLERS
from shadowmmu.machine.exits.ports import guard_port
from shadowmmu.machine.intercepts import NESTED_PAGING, SHADOW_PAGING
from shadowmmu.machine.loop.vcpu_loop import VcpuLoop
from shadowmmu.machine.seam import ExitKind, Ports, State
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.processor import Processor

FEATURES = frozenset(("la57", "svm", "npt"))
"""What the captured guests' CPUID offers beside the usual; CR4 follows the capture's set-up."""


def _write_cr4(p: Processor, value: int, _in_64_bit_code: bool) -> bool:
    """The captured guest's CPUID says what it may set, of which the engine knows: more than this machine offers."""
    return bool(p.vcpu.set_cr4(value))


class CapturedVcpu:
    """A `processor` whose parts are those of a rerun.

    ports                    by which the guest talks
    on_store, on_host_store  hear of stores that the CPU does not do itself
    on_mmio                  user space's: (gpa, size, is a write)
    listener                 takes events of the vCPU loop, in order with those of the MMU
    """

    def __init__(
        self,
        vcpu: Vcpu,
        ports: Ports,
        listener: Listener,
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
        on_mmio: Callable[[int, int, bool], None],
    ) -> None:
        intercepts = NESTED_PAGING if vcpu.vm.tdp else SHADOW_PAGING
        self.cpu = CapturedCpu(vcpu.vm.host_regions(), ports, self._guard, intercepts)
        self.pdptes = Pdptes(vcpu, self._pdpte_marked)
        self.memory = EmulatorMemory(vcpu, on_store, on_mmio, self.pdptes)
        self.fetched = FetchedCode(vcpu)
        self.fetcher = Fetcher(self.fetched)
        self.witness = KvmWitness(vcpu, self.cpu, self.memory, self.fetcher, self.pdptes, listener)
        cpuid = Cpuid(0, vcpu.vm.config, FEATURES)
        self.processor = Processor(vcpu, self.cpu, cpuid, intercepts, self.memory, self.fetcher, self.witness)
        writers = WRITERS | {4: _write_cr4}
        write = partial(write_control, writers={register: self._on_marked(write) for register, write in writers.items()})
        self._loop = VcpuLoop(self.processor, on_store, on_host_store, HANDLERS | {ExitKind.CR_WRITE: write}, self.cpu)

    def step(self) -> None:
        """One exit of the guest."""
        self.fetcher.memory = self.fetched
        self.memory.begin_emulation(None)
        self.pdptes.entered(self.cpu.state().rip)
        self._loop.step()

    def _on_marked(self, write: RegisterWrite) -> RegisterWrite:
        """KVM reads PDPTEs as the captured CPU has left them."""

        def write_on_marked(p: Processor, value: int, in_64_bit_code: bool) -> bool:
            self.pdptes.show()
            done = write(p, value, in_64_bit_code)
            self.pdptes.hide()
            return done

        return write_on_marked

    def _guard(self, state: State, port: int, size: int) -> ExitKind | None:
        return guard_port(self.processor, state, port, size)

    def _pdpte_marked(self) -> None:
        self.cpu.adapted[ACCESSED_PDPTE] += 1
