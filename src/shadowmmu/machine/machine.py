# SPDX-License-Identifier: GPL-2.0-only
"""The machine: a guest, the engine, and one processor a vCPU, run in turns."""

from collections import Counter
from collections.abc import Callable

from shadowmmu.border.files import parsing
from shadowmmu.border.limits import OUTPUT
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.engine.face.types import TripleFault
from shadowmmu.engine.face.vm import Vm
from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.ctrl_c import CtrlC
from shadowmmu.machine.devices.acpi import SLEEP_TO_MEMORY, WAKING_VECTOR, firmware
from shadowmmu.machine.devices.clock import TICKS_PER_EXIT, TICKS_PER_SECOND, Clock
from shadowmmu.machine.devices.console import Console
from shadowmmu.machine.devices.exit_device import DEBUG_PORT, EXIT_PORT, DebugPort, ExitDevice
from shadowmmu.machine.devices.host_port import HOST_PORT, HostPort
from shadowmmu.machine.devices.mmio_bus import MmioBus
from shadowmmu.machine.devices.pc import Pc
from shadowmmu.machine.devices.port_bus import PortBus
from shadowmmu.machine.devices.test_device import DeviceMemory
from shadowmmu.machine.devices.text_screen import SCREEN, SCREEN_SIZE, screen_text
from shadowmmu.machine.devices.uart import SERIAL, SERIAL_LINE, SerialPort, Uart
from shadowmmu.machine.emulator.decode import UnemulatedInstruction
from shadowmmu.machine.exits.ports import guard_port
from shadowmmu.machine.host import Host, HostAtWork
from shadowmmu.machine.intercepts import DEBUG_CONTROL, EXIT_ON_PAUSE, NESTED_PAGING, SHADOW_PAGING, TABLE_LOADS
from shadowmmu.machine.last_seen import FaultWitness, LastSeen, place_of
from shadowmmu.machine.loader import Guest, Loaded, load_image
from shadowmmu.machine.loop.allowance import Limits, Turn, allow, count_served
from shadowmmu.machine.loop.outside import is_runnable, may_come_at_an_exit
from shadowmmu.machine.loop.vcpu_loop import VcpuLoop
from shadowmmu.machine.memory.linear_memory import PAGE_SIZE, GuestMemory
from shadowmmu.machine.result import GuestResult, Reason, resident_bytes
from shadowmmu.machine.seam import Exit, ExitKind, State
from shadowmmu.machine.svm.reflect import exit_name
from shadowmmu.machine.symbols import Symbols
from shadowmmu.machine.unclaimed import Unclaimed
from shadowmmu.machine.vcpu.code_pages import CodePages
from shadowmmu.machine.vcpu.cpuid import Cpuid, cr4_not_for
from shadowmmu.machine.vcpu.deliver import TaskSwitch
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.quick_audit import QuickAudit
from shadowmmu.machine.vcpu.quick_exits import FOREVER, QuickExits
from shadowmmu.machine.verdict import by_exit_code, by_halt

MAX_EXITS = 2_000_000
MAX_QUIET = 2_000_000_000
_TURN, _TURN_INSTRUCTIONS = 64, 20_000  # exits, and instructions, of one vCPU before the next has its turn
_SLEEP = 10 * TICKS_PER_SECOND  # for so long timers may go off and wake nobody


class Machine:
    """A virtual machine with a guest in it.

    guest         from `read_guest`
    roots         the root design, a name of ROOT_DESIGNS
    shadow_pages  limit of shadow pages; 0: the kernel's default
    on_output     gets the guest's output, line by line
    on_exit       called with the machine and the exit after each exit has been handled; may be set between runs. With it no
                  exit is served in the CPU's hook (`vcpu.quick_hook`), and all else is the same
    on_look       called with the machine now and then, at least once in some thousand exits
    audit         called with the Vm after each exit; what it raises ends the run
    loaded        an image to run instead of the guest's own
    raw_state     exits may be served on the processors' own state, if it can be found; else on what the public API saves of it

    Runs repeat exactly, several vCPUs included: turns, timers and interrupts go by `clock`, which counts what the guest does.
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
        on_look: Callable[["Machine"], None] | None = None,
        audit: Callable[[Vm], None] | None = None,
        loaded: Loaded | None = None,
        raw_state: bool = True,
    ) -> None:
        self.guest = guest
        self.vm = _vm_of(guest, roots, kernel, shadow_pages)
        self.on_exit, self._on_look, self._audit = on_exit, on_look, audit
        self._raw_state, self._unclaimed = raw_state, Unclaimed()
        self._code_pages = CodePages()
        self._witnesses: list[FaultWitness] = []
        self.processors: tuple[Processor, ...] = ()
        self.clock = Clock(self._look_up, self._spent)
        self.console = Console(on_output)
        self.ports = PortBus(self._unclaimed, self.clock)
        self._exit_device = ExitDevice(self._stop_cpus)
        self.host = None if guest.host is None else HostAtWork(guest.host, self.vm, self._host_has_changed)
        self._device_memory = DeviceMemory()
        self._was_reset = False
        self._pc: Pc | None = None
        self._serial = SerialPort(self.console.print, self._set_serial_line)
        self._pc = self._add_devices()
        self.exits = 0
        """Exits so far; stops of the machine's own do not count."""
        self._load(loaded := loaded or load_image(guest))
        self._loops = tuple(self._vcpu_loop(number, loaded) for number in range(guest.vcpus))
        self.processors = tuple(loop.processor for loop in self._loops)
        self._quiet = self._awake = self._turn = 0
        self._ran_last: Processor | None = None

    def _add_devices(self) -> Pc | None:
        self.ports.add(SERIAL, len(Uart), self._serial)
        self.ports.add(DEBUG_PORT, 1, DebugPort(self.console.print))
        self.ports.add(EXIT_PORT, 1, self._exit_device)
        if self.host is not None:
            self.ports.add(HOST_PORT, 4, HostPort(self.host.perform))
        if self.guest.platform == "bare":
            return None
        return Pc(
            self.clock,
            self.ports,
            self._serial,
            memory_mib=self.guest.memory_mib,
            vcpus=self.guest.vcpus,
            wake=self._look_up,
            flush=self._flush_page,
            reset=self._reset,
            sleep=self._sleep,
            waiting=self.guest.input.encode(),
        )

    def _set_serial_line(self, level: bool) -> None:
        """Only the PC has interrupts."""
        if self._pc is not None:
            self._pc.set_line(SERIAL_LINE, level)

    def _load(self, loaded: Loaded) -> None:
        if self._pc is not None:
            for gpa, data in firmware(self.guest.vcpus).items():
                self.vm.write_guest(gpa, data)
        for number, piece in enumerate(loaded.pieces):
            self.vm.write_guest(piece.gpa, piece.data)
            for start, end in piece.zeroes(loaded.pieces[:number]):
                self.vm.write_guest(start, bytes(end - start))

    def _vcpu_loop(self, number: int, loaded: Loaded) -> VcpuLoop:
        vcpu = self.vm.vcpus[number]
        guest, apic = self.guest, None if self._pc is None else self._pc.local_apics[number]
        cpuid = Cpuid(number, self.vm.config, frozenset(guest.features), frozenset(guest.without), apic)
        intercepts = NESTED_PAGING if self.vm.tdp else SHADOW_PAGING
        if guest.vcpus > 1:
            intercepts |= EXIT_ON_PAUSE
        if guest.platform == "pc":
            intercepts |= TABLE_LOADS | DEBUG_CONTROL

        def guard(state: State, port: int, size: int) -> ExitKind | None:
            return guard_port(processor, state, port, size)

        quick = QuickExits(vcpu, self._code_pages)
        if self._audit is not None:
            quick.watch(QuickAudit(self._audit, self.vm))
        cpu = UnicornCpu(self.vm.host_regions(), self.ports, guard, intercepts, quick, raw_state=self._raw_state)
        cpu.set_state(loaded.state)
        self.clock.count_too(lambda: cpu.executed)
        self.clock.count_too(lambda: (quick.served + quick.ported) * TICKS_PER_EXIT)
        witness = FaultWitness()
        mmio = MmioBus(self._unclaimed)
        if self._pc is not None:
            self._pc.mmio(number, mmio)
        if self.host is not None:
            mmio.add(self._device_memory)
        memory = GuestMemory(vcpu, self._stored, self._unclaimed, mmio, has_la57=cpuid.offers("la57"), walker=quick)
        processor = Processor(vcpu, cpu, cpuid, intercepts, memory, witness=witness, clock=self.clock, apic=apic, quick=quick)
        witness.processor = processor
        quick.reach(self.ports, self._serial, self.console)
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

    def _flush_page(self, gpa: int) -> None:
        """The host takes a page away and gives it back."""
        if gpa < self.vm.memory_size:
            self.vm.invalidate_hva(gpa, PAGE_SIZE)
        self._look_up()

    def _host_has_changed(self) -> None:
        self.host_memory_changed()
        self._look_up()

    def _reset(self) -> None:
        """Nothing would start it again: there is no firmware."""
        self._was_reset = True
        self._stop_cpus()

    def _sleep(self, kind: int) -> None:
        """ACPI's S3: only memory is left, and the first processor starts where the guest has said."""
        assert self._pc is not None
        if kind == SLEEP_TO_MEMORY:
            self._pc.wake_at(int.from_bytes(self.vm.read_guest(WAKING_VECTOR, 4), "little"))

    def _stop_cpus(self) -> None:
        for processor in self.processors:
            processor.cpu.stop()

    def _look_up(self) -> None:
        """A device has news: if a CPU runs, it is to come back and see."""
        for processor in self.processors:
            if processor.cpu.running:
                processor.cpu.stop()

    def _spent(self, ticks: int) -> None:
        """Time passed while a CPU runs."""
        for processor in self.processors:
            if processor.cpu.running and processor.quick is not None:
                processor.quick.spend(ticks)

    # --- running

    def run(self, *, max_exits: int = MAX_EXITS, max_quiet: int = MAX_QUIET, max_ticks: int | None = None) -> GuestResult:
        """Run until the guest ends or a limit is reached.

        max_exits  total exits of this machine, counted from its start
        max_quiet  instructions that a guest may execute without any exit
        max_ticks  of `clock`, counted from its start
        """
        with CtrlC(self._stop_cpus) as ctrl_c:
            reason, detail = self._loop(Limits(max_exits, max_quiet, max_ticks), ctrl_c)
        self.console.flush()
        return self._result(reason, detail)

    def _loop(self, limits: Limits, ctrl_c: CtrlC) -> tuple[Reason, str]:
        self._quiet, self._awake = 0, self.clock.now
        while True:
            loop = self._next_loop()
            if loop is None:
                if self.clock.now - self._awake > _SLEEP or not self.clock.warp():
                    return by_halt(self.guest, self.processors[0].halted_at, self.console.output)
                ended = self._limit_reached(limits)
            else:
                ended = self._take_turn(loop, limits, ctrl_c)
            if ended is not None:
                return ended

    def _next_loop(self) -> VcpuLoop | None:
        """That of the next vCPU that does not sleep."""
        for _ in self._loops:
            loop = self._loops[self._turn % len(self._loops)]
            self._turn += 1
            if is_runnable(loop.processor):
                return loop
        return None

    def _take_turn(self, loop: VcpuLoop, limits: Limits, ctrl_c: CtrlC) -> tuple[Reason, str] | None:
        """Run one vCPU until it waits or others are to go on; why the run has ended, if it has."""
        processor, alone = loop.processor, self._is_alone(loop)
        if self._ran_last is not processor and self._ran_last is not None:
            processor.cpu.all_code_changed()
        self._ran_last, processor.yielded = processor, False
        turn = Turn(FOREVER, FOREVER) if alone else Turn(self.exits + _TURN, processor.cpu.executed + _TURN_INSTRUCTIONS)
        while is_runnable(processor) and not processor.yielded:
            if self.exits >= turn.last_exit or processor.cpu.executed >= turn.last_instruction:
                return None
            ended = self._step(loop, turn, limits, ctrl_c)
            if ended is not None:
                return ended
            if alone and not self._is_alone(loop):
                break
        self._awake = self.clock.now
        return None

    def _is_alone(self, loop: VcpuLoop) -> bool:
        """All other vCPUs sleep."""
        return not any(is_runnable(other.processor) for other in self._loops if other is not loop)

    def _step(self, loop: VcpuLoop, turn: Turn, limits: Limits, ctrl_c: CtrlC) -> tuple[Reason, str] | None:
        processor = loop.processor
        since = processor.cpu.executed
        self.clock.expire_due()
        quick = self._may_be_quick(processor)
        allow(processor, self.clock, turn, limits, exits=self.exits, quiet=self._quiet, quick=quick)
        try:
            exit_ = loop.step()
        except TripleFault as end:
            return Reason.TRIPLE_FAULT, str(end)
        except (UnemulatedInstruction, TaskSwitch) as end:
            return Reason.UNEMULATED, str(end)
        finally:
            served = count_served(processor)
            self.exits += served
        if processor.quick is not None and served:
            since, self._quiet = processor.quick.last, 0
        ctrl_c.check()
        self._quiet = self._quiet + processor.cpu.executed - since if exit_.kind is ExitKind.INTERRUPTED else 0
        return self._after(processor, exit_, limits)

    def _may_be_quick(self, processor: Processor) -> bool:
        """Nobody is to see each exit, and there is nothing else to do at one than the MMU's part."""
        return self.on_exit is None and not may_come_at_an_exit(processor)

    @property
    def in_hook(self) -> int:
        """Exits so far that were served in the CPU's hook, without Python."""
        return sum(processor.quick.served for processor in self.processors if processor.quick is not None)

    @property
    def on_raw_state(self) -> bool:
        """Those are served on the processors' own state, and not on what the public API saves of it."""
        return all(processor.cpu.on_raw_state for processor in self.processors)

    @property
    def _ported(self) -> int:
        """Accesses to ports that were done in the CPU's hook, without Python."""
        return sum(processor.quick.ported for processor in self.processors if processor.quick is not None)

    def _after(self, processor: Processor, exit_: Exit, limits: Limits) -> tuple[Reason, str] | None:
        """Count, call the hooks, and see whether that was the end."""
        if exit_.kind is not ExitKind.INTERRUPTED:
            self.exits += 1
            if self._audit is not None:
                self._audit(self.vm)
            if self.on_exit is not None:
                self.on_exit(self, exit_)
        if self._on_look is not None:
            self._on_look(self)
        if self._exit_device.code is not None:
            return by_exit_code(self.guest, self._exit_device.code, self.console.output)
        if self.host is not None and self.host.failure:
            return Reason.FAILED, self.host.failure
        if self._was_reset:
            return Reason.RESET, f"near RIP {processor.cpu.state().rip:#x}"
        if processor.shutdown is not None:
            return Reason.TRIPLE_FAULT, processor.shutdown
        if self.console.full:
            return Reason.FAILED, f"it prints without end, {OUTPUT:,} characters so far"
        if self._quiet >= limits.quiet:
            return Reason.SPINNING, f"{limits.quiet:,} instructions without an exit, near RIP {processor.cpu.state().rip:#x}"
        return self._limit_reached(limits)

    def _limit_reached(self, limits: Limits) -> tuple[Reason, str] | None:
        if self.exits >= limits.exits:
            return Reason.EXIT_LIMIT, f"{self.exits} exits"
        if limits.ticks is not None and self.clock.now >= limits.ticks:
            return Reason.TIME_LIMIT, f"{self.clock.now / TICKS_PER_SECOND:.3f} s of the guest's time"
        return None

    # --- the result

    def last_seen(self, image: bytes) -> LastSeen:
        """Where the guest is, its last faults, and what it asked for in vain; places are named by its ELF `image`."""
        symbols = Symbols(image)
        places = [place_of(processor, symbols) for processor in self.processors]
        faults = [witness.last(symbols) for witness in self._witnesses]
        return LastSeen(places, faults, self._unclaimed.last(), self._screen())

    def _screen(self) -> list[str]:
        """What the PC's text screen shows."""
        if self._pc is None or self.vm.memory_size < SCREEN + SCREEN_SIZE:
            return []
        return screen_text(bytes(self.vm.read_guest(SCREEN, SCREEN_SIZE)))

    def _result(self, reason: Reason, detail: str) -> GuestResult:
        exits: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        injected: Counter[str] = Counter()
        reflected: Counter[str] = Counter()
        for processor in self.processors:
            exits.update({kind.value: count for kind, count in processor.exits.items()})
            outcomes.update({outcome.name.lower(): count for outcome, count in processor.outcomes.items()})
            injected.update(processor.injected)
            reflected.update({exit_name(code): count for code, count in processor.reflected.items()})
        return GuestResult(
            guest=self.guest.name,
            roots=self.vm.roots,
            reason=reason,
            detail=detail,
            code=self._exit_device.code,
            exits=dict(exits.most_common()),
            outcomes=dict(outcomes.most_common()),
            injected=dict(injected.most_common()),
            reflected=dict(reflected.most_common()),
            emulated=sum(processor.emulated for processor in self.processors),
            unprotected=sum(processor.unprotected for processor in self.processors),
            port_accesses=self.ports.reads + self.ports.writes + self._ported,
            output=self.console.output,
            counters=self.vm.counters(),
            host_memory=resident_bytes(self.vm.host_regions()),
        )


def _vm_of(guest: Guest, roots: str, kernel: str, shadow_pages: int) -> Vm:
    """The engine's part, with all the memory of the guest."""
    if guest.host is not None:
        return _vm_on(guest, guest.host, roots, kernel, shadow_pages)
    vm = Vm(
        memory_mib=guest.low_memory_mib,
        user_mib=guest.memory_mib,
        vcpus=guest.vcpus,
        roots=roots,
        kernel=kernel,
        shadow_pages=shadow_pages,
        tdp="npt" in guest.features,
        guest_vendor="vmx" if guest.vendor == "Intel" else "svm",
        cr4_reserved=cr4_not_for(frozenset(guest.features)),
    )
    high, size = guest.high_memory
    if size:
        vm.set_memslot(1, high, size, guest.low_memory_mib << 20)
    return vm


def _vm_on(guest: Guest, host: Host, roots: str, kernel: str, shadow_pages: int) -> Vm:
    """The same on a host that the guest's description tells of. Raises BadInput."""
    vm = Vm(
        memory_mib=0,
        user_mib=host.memory_mib,
        vcpus=guest.vcpus,
        roots=roots,
        kernel=kernel,
        shadow_pages=shadow_pages or host.shadow_pages,
        guest_vendor="vmx" if guest.vendor == "Intel" else "svm",
        cr4_reserved=cr4_not_for(frozenset(guest.features)),
        pages_1g=host.pages_1g,
        nx_huge_pages=host.nx_huge_pages,
        eager_page_split=host.eager_page_split,
    )
    with parsing(f"guest {guest.name}: host", "mend its memslots"):
        host.set_up(vm)
    return vm
