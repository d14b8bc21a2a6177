# SPDX-License-Identifier: GPL-2.0-only
"""The machine: a guest, the engine, and one processor a vCPU, run in turns."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.engine.face.types import TripleFault
from shadowmmu.engine.face.vm import Vm
from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.ctrl_c import CtrlC
from shadowmmu.machine.devices import EXIT_PASS, PortBus
from shadowmmu.machine.emulator.decode import UnemulatedInstruction
from shadowmmu.machine.exits.ports import guard_port
from shadowmmu.machine.intercepts import EXIT_ON_PAUSE, NESTED_PAGING, SHADOW_PAGING
from shadowmmu.machine.last_seen import FaultWitness, LastSeen, place_of
from shadowmmu.machine.loader import Guest, Loaded, load_image
from shadowmmu.machine.loop.vcpu_loop import VcpuLoop
from shadowmmu.machine.memory.linear_memory import GuestMemory
from shadowmmu.machine.result import Reason, Result, resident_bytes
from shadowmmu.machine.seam import Exit, ExitKind, State
from shadowmmu.machine.svm.reflect import exit_name
from shadowmmu.machine.symbols import Symbols
from shadowmmu.machine.unclaimed import Unclaimed
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.deliver import TaskSwitch
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Cr4

MAX_EXITS = 2_000_000
MAX_QUIET_SECONDS = 20.0
_TICK = 0.1  # wall seconds after which a CPU without an exit is stopped for a look around
_TURN = 64  # exits of one vCPU before the next has its turn


class Machine:
    """A virtual machine with a guest in it.

    guest         from `read_guest`
    roots         the root design, a name of ROOT_DESIGNS
    shadow_pages  limit of shadow pages; 0: the kernel's default
    on_output     gets the guest's output, line by line
    on_exit       called with the machine and the exit after each exit has been handled
    audit         called with the Vm after each exit; what it raises ends the run
    loaded        an image to run instead of the guest's own

    Runs repeat exactly, several vCPUs included, as long as no vCPU spins for longer than a tenth of a second
    without an exit.
    """

    def __init__(
        self,
        guest: Guest,
        *,
        roots: str = "special",
        kernel: str = DEFAULT_KERNEL,
        shadow_pages: int = 0,
        on_output: Callable[[str], None] | None = None,
        on_exit: Callable[["Machine", Exit], None] | None = None,
        audit: Callable[[Vm], None] | None = None,
        loaded: Loaded | None = None,
    ) -> None:
        self.guest = guest
        nested_paging = "npt" in guest.features
        self.vm = Vm(
            memory_mib=guest.memory_mib,
            vcpus=guest.vcpus,
            roots=roots,
            kernel=kernel,
            shadow_pages=shadow_pages,
            tdp=nested_paging,
            cr4_reserved=int(Cr4.LA57) if nested_paging else 0,  # the nested tables of this CPU have four levels
        )
        self._on_exit, self._audit = on_exit, audit
        self._unclaimed = Unclaimed()
        self._witnesses: list[FaultWitness] = []
        self.ports = PortBus(on_output, self._stop_cpus, self._unclaimed)
        self.exits = 0
        """Exits so far; those of the machine's own clock do not count."""
        loaded = loaded or load_image(guest)
        for number, piece in enumerate(loaded.pieces):
            self.vm.write_guest(piece.gpa, piece.data)
            for start, end in piece.zeroes(loaded.pieces[:number]):
                self.vm.write_guest(start, bytes(end - start))
        self._loops = tuple(self._vcpu_loop(number, loaded) for number in range(guest.vcpus))
        self.processors = tuple(loop.processor for loop in self._loops)
        self._quiet_since = 0.0
        self._turn = 0

    def _vcpu_loop(self, number: int, loaded: Loaded) -> VcpuLoop:
        vcpu = self.vm.vcpus[number]
        cpuid = Cpuid(number, self.vm.config, frozenset(self.guest.features))
        intercepts = NESTED_PAGING if self.vm.tdp else SHADOW_PAGING
        if self.guest.vcpus > 1:
            intercepts |= EXIT_ON_PAUSE

        def guard(state: State, port: int, size: int) -> ExitKind | None:
            return guard_port(processor, state, port, size)

        cpu = UnicornCpu(self.vm.host_regions(), self.ports, guard, intercepts)
        cpu.set_state(loaded.state)
        witness = FaultWitness()
        memory = GuestMemory(vcpu, self._stored, self._unclaimed)
        processor = witness.processor = Processor(vcpu, cpu, cpuid, intercepts, memory, witness=witness)
        self._witnesses.append(witness)
        vcpu.set_sregs(loaded.cr0, 0, 0, 0)
        return VcpuLoop(processor, self._stored, self._host_stored)

    def _stored(self, gpa: int, size: int) -> None:
        """The emulator stored there; CPUs may have translated code from it."""
        hpa = self.vm.host_address(gpa)
        if hpa is not None:
            self._host_stored(hpa, size)

    def _host_stored(self, hpa: int, size: int) -> None:
        for processor in self.processors:
            processor.cpu.code_changed(hpa, size)

    def host_memory_changed(self) -> None:
        """For hooks that make the host drop or replace guest pages: CPUs forget the code they translated."""
        for processor in self.processors:
            processor.cpu.all_code_changed()

    def _stop_cpus(self) -> None:
        for processor in self.processors:
            processor.cpu.stop()

    # --- running

    def run(self, *, max_exits: int = MAX_EXITS, max_quiet_seconds: float = MAX_QUIET_SECONDS) -> Result:
        """Run until the guest ends or a limit is reached.

        max_exits          total exits of this machine, counted from its start
        max_quiet_seconds  CPU time, in seconds, that a guest may run without any exit
        """
        with self._ticking(), CtrlC(self._stop_cpus) as ctrl_c:
            reason, detail = self._loop(max_exits, max_quiet_seconds, ctrl_c)
        self.ports.flush()
        return self._result(reason, detail)

    def _loop(self, max_exits: int, max_quiet_seconds: float, ctrl_c: CtrlC) -> tuple[Reason, str]:
        self._quiet_since = time.thread_time()
        while not all(processor.halted for processor in self.processors):
            for loop in self._turns():
                try:
                    exit_ = loop.step()
                except TripleFault as end:
                    return Reason.TRIPLE_FAULT, str(end)
                except (UnemulatedInstruction, TaskSwitch) as end:
                    return Reason.UNEMULATED, str(end)
                ctrl_c.check()
                ended = self._after(loop.processor, exit_, max_quiet_seconds)
                if ended is not None:
                    return ended
                if self.exits >= max_exits:
                    return Reason.EXIT_LIMIT, f"{self.exits} exits"
        return self._halted()

    def _turns(self) -> Iterator[VcpuLoop]:
        """The loop of the vCPU whose turn it is, over and over, as long as its turn lasts."""
        loop = self._loops[self._turn % len(self._loops)]
        processor = loop.processor
        self._turn += 1
        if processor.halted:
            return
        if len(self.processors) > 1:
            processor.cpu.all_code_changed()
        processor.yielded = False
        last = self.exits + _TURN
        while not (processor.halted or processor.yielded) and (len(self.processors) == 1 or self.exits < last):
            yield loop

    def _after(self, processor: Processor, exit_: Exit, max_quiet_seconds: float) -> tuple[Reason, str] | None:
        """Count, call the hooks, and see whether that was the end."""
        if exit_.kind is ExitKind.INTERRUPTED:
            processor.yielded = True
            if time.thread_time() - self._quiet_since > max_quiet_seconds:
                return Reason.SPINNING, f"{max_quiet_seconds:g} s of CPU time without an exit, near RIP {processor.cpu.state().rip:#x}"
        else:
            self.exits += 1
            self._quiet_since = time.thread_time()
            if self._audit is not None:
                self._audit(self.vm)
            if self._on_exit is not None:
                self._on_exit(self, exit_)
        if self.ports.exit_code is not None:
            return self._verdict(self.ports.exit_code)
        if processor.shutdown is not None:
            return Reason.TRIPLE_FAULT, processor.shutdown
        return None

    def _verdict(self, code: int) -> tuple[Reason, str]:
        if code != EXIT_PASS:
            return Reason.FAILED, f"exit port: {code:#x}"
        wrong = self._wrong_last_line()
        return (Reason.FAILED, wrong) if wrong else (Reason.PASSED, "")

    def _halted(self) -> tuple[Reason, str]:
        wrong = self._wrong_last_line() if self.guest.end == "halt" else ""
        return (Reason.FAILED, wrong) if wrong else (Reason.HALTED, f"HLT at RIP {self.processors[0].cpu.state().rip:#x}")

    def _wrong_last_line(self) -> str:
        last = self.ports.output.rstrip().rpartition("\n")[2]
        return f"last line is {last!r}, not {self.guest.expect!r}" if self.guest.expect and last != self.guest.expect else ""

    @contextmanager
    def _ticking(self) -> Iterator[None]:
        """Stop a CPU that runs long without an exit, so that limits and signals are looked at."""
        over = threading.Event()

        def tick() -> None:
            before = -1
            while not over.wait(_TICK):
                if self.exits == before:
                    self._stop_cpus()
                before = self.exits

        thread = threading.Thread(target=tick, name="shadowmmu-tick", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    # --- the result

    def last_seen(self, image: bytes) -> LastSeen:
        """Where the guest is, its last faults, and what it asked for in vain; places are named by its ELF `image`."""
        symbols = Symbols(image)
        places = [place_of(processor, symbols) for processor in self.processors]
        return LastSeen(places, [witness.last(symbols) for witness in self._witnesses], self._unclaimed.last())

    def _result(self, reason: Reason, detail: str) -> Result:
        exits: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        injected: Counter[str] = Counter()
        reflected: Counter[str] = Counter()
        for processor in self.processors:
            exits.update({kind.value: count for kind, count in processor.exits.items()})
            outcomes.update({outcome.name.lower(): count for outcome, count in processor.outcomes.items()})
            injected.update(processor.injected)
            reflected.update({exit_name(code): count for code, count in processor.reflected.items()})
        return Result(
            guest=self.guest.name,
            roots=self.vm.roots,
            reason=reason,
            detail=detail,
            code=self.ports.exit_code,
            exits=dict(exits.most_common()),
            outcomes=dict(outcomes.most_common()),
            injected=dict(injected.most_common()),
            reflected=dict(reflected.most_common()),
            emulated=sum(processor.emulated for processor in self.processors),
            unprotected=sum(processor.unprotected for processor in self.processors),
            port_accesses=self.ports.reads + self.ports.writes,
            output=self.ports.output,
            counters=self.vm.counters(),
            host_memory=resident_bytes(self.vm.host_regions()),
        )
