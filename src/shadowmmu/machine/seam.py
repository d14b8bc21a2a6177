# SPDX-License-Identifier: GPL-2.0-only
"""The seam between the machine and a CPU: what passes through it, and the calls of a back end.

A back end runs guest code on whatever page tables `Controls.cr3` names, until something happens that is the
machine's business: an `Exit`. Port I/O does not come as an exit: a back end calls `Ports` while it runs. Nor are events
injected through the seam: the machine delivers them itself, in the guest's registers and memory (`deliver`), so that
every back end delivers alike.
"""

from collections.abc import Callable
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from shadowmmu.x86.vmcb import Attr

MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1


class Reg(IntEnum):
    """Indices of general registers, in the order of their encoding."""

    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)


class Seg(IntEnum):
    """Indices of segment registers, in the order of their encoding."""

    ES, CS, SS, DS, FS, GS = range(6)


class Segment(NamedTuple):
    """A segment register with its hidden part. `limit` in bytes, already scaled by the granularity bit."""

    selector: int
    attr: int
    limit: int
    base: int

    @property
    def dpl(self) -> int:
        return self.attr >> 5 & 3

    @property
    def big(self) -> bool:
        """32-bit operands (code) or a 32-bit stack pointer (stack)."""
        return bool(self.attr & Attr.BIG)

    @property
    def long(self) -> bool:
        """64-bit code, where long mode is active."""
        return bool(self.attr & Attr.LONG)


class Table(NamedTuple):
    """GDTR or IDTR. `limit` in bytes, the last valid offset."""

    base: int
    limit: int


class System(NamedTuple):
    """The part of the registers that seldom changes; another value of it costs a whole new guest entry."""

    segments: tuple[Segment, ...]
    ldtr: Segment
    tr: Segment
    gdtr: Table
    idtr: Table
    cpl: int
    dr6: int
    dr7: int
    kernel_gs_base: int
    star: int = 0
    sysenter_cs: int = 0
    sysenter_esp: int = 0
    sysenter_eip: int = 0


class State:
    """Registers of a guest at an exit, except the control registers, which the engine's vCPU keeps.

    `interrupt_shadow`: the instruction before was STI or a load of SS, and no interrupt may come yet.
    """

    __slots__ = ("gpr", "interrupt_shadow", "rflags", "rip", "system")

    def __init__(self, gpr: list[int], rip: int, rflags: int, system: System, *, interrupt_shadow: bool = False) -> None:
        self.gpr = gpr
        self.rip = rip
        self.rflags = rflags
        self.system = system
        self.interrupt_shadow = interrupt_shadow

    @property
    def cs(self) -> Segment:
        return self.system.segments[Seg.CS]

    @property
    def ss(self) -> Segment:
        return self.system.segments[Seg.SS]

    @property
    def cpl(self) -> int:
        return self.system.cpl

    def copy(self) -> "State":
        return State(list(self.gpr), self.rip, self.rflags, self.system, interrupt_shadow=self.interrupt_shadow)

    def set_segments(self, changes: dict[Seg, Segment]) -> None:
        segments = list(self.system.segments)
        for index, segment in changes.items():
            segments[index] = segment
        self.system = self.system._replace(segments=tuple(segments))


class Controls(NamedTuple):
    """The control registers the hardware runs with: the real ones, not those the guest believes in.

    `ncr3` is the host physical address of 4-level nested page tables, 0 while there are none. With them, `cr3` is the
    guest's own.
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    ncr3: int = 0


class Intercepts(NamedTuple):
    """What leaves the guest, in the VMCB's words: a bit a register or vector, then `Intercept1` and `Intercept2`.

    Of port accesses a back end asks `Ports`' guard, if IOIO is set or the guest is outside ring 0.
    """

    cr_read: int
    cr_write: int
    dr_read: int
    dr_write: int
    exceptions: int
    first: int
    second: int

    def __or__(self, other: object) -> "Intercepts":
        if not isinstance(other, Intercepts):
            return NotImplemented
        return Intercepts(*(mine | theirs for mine, theirs in zip(self, other, strict=True)))


class ExitKind(Enum):
    """Why a CPU stopped. RIP is that of the instruction, not yet executed, unless said otherwise."""

    PAGE_FAULT = "page fault"  # gva, error_code
    NESTED_PAGE_FAULT = "nested page fault"  # gva: the guest physical address; error_code, its low half
    EXCEPTION = "exception"  # number: vector; error_code
    SOFTWARE_INTERRUPT = "software interrupt"  # INT n, INT3, INTO
    CR_READ = "CR read"  # number: register; so the next
    CR_WRITE = "CR write"
    DEBUG_REGISTER = "debug register"  # MOV to or from DRn; number: exit code
    TABLE_LOAD = "table load"  # LGDT, LIDT, LLDT, LTR; number: exit code
    INVLPG = "INVLPG"
    CPUID = "CPUID"
    MSR = "MSR"  # number: 0 read, 1 write
    RDTSC = "RDTSC"  # RDTSCP too
    RDPMC = "RDPMC"
    HLT = "HLT"
    PAUSE = "PAUSE"
    SYSCALL = "SYSCALL"  # gva: RIP of the instruction; State.rip is behind it
    CACHE = "cache control"  # INVD, WBINVD
    SVM = "SVM"  # VMRUN and its like; number: exit code
    UNDEFINED = "undefined"  # an instruction the machine does not offer, as MONITOR; number: exit code
    INTERCEPTED = "intercepted"  # something else that `Intercepts` asked for; number: exit code
    IRET = "IRET"  # intercepted while NMIs are masked
    INTERRUPT_WINDOW = "interrupt window"  # VINTR is intercepted, and the guest is ready for an interrupt
    PORT = "port"  # IN or OUT that the guard wants to see; number: port; error_code: bytes
    PORT_DENIED = "port denied"  # IN or OUT without the right to
    TASK_SWITCH = "task switch"  # by hardware, and already done: the guest's CR3 is lost
    SHUTDOWN = "shutdown"
    INTERRUPTED = "interrupted"  # by `Cpu.stop` or `Cpu.stop_at`


class Exit(NamedTuple):
    kind: ExitKind
    number: int = 0
    error_code: int = 0
    gva: int = 0


class Ports(Protocol):
    """The I/O port space; `size` in bytes (1, 2, 4)."""

    def read(self, port: int, size: int) -> int: ...
    def write(self, port: int, size: int, value: int) -> None: ...


PortGuard = Callable[["State", int, int], ExitKind | None]
"""(state, port, bytes) -> None to let the access through, or PORT_DENIED or PORT to exit in its place."""


class CpuError(Exception):
    """The CPU back end cannot go on: an access outside host memory, or an engine that cannot be used."""


class Places(NamedTuple):
    """Where a CPU back end has what an exit server needs: addresses in this process, which outlive the CPU's hook."""

    save: int
    """C function that reads the processor context, or of it what stands below."""
    restore: int
    """Makes it the processor's again."""
    context: int
    """What these two are to be given."""
    gpr: int
    """Sixteen u64, in the context; so the next."""
    rip: int
    """u64."""
    mode: int
    """u32: its two lowest bits are the CPL, bit 3 is the interrupt shadow."""
    segments: int
    """Of 24 bytes, as `UnicornCpu` has them: ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR."""
    code_base: int
    """u64: the base of CS."""
    cr3: int
    """u64, and CR4 behind it. With shadow paging a task switch by hardware has changed it if it is not that of `entry`."""
    head: int
    """Bytes of the context that VMRUN saves and loads."""
    efer: int
    """u64."""
    debug: int
    """DR6, then DR7, u64."""
    kernel_gs_base: int
    """u64."""
    error_code: int
    """u32."""
    address: int
    """u64: EXITINFO2."""
    executed: int
    """u64: instructions so far."""
    request: int
    """What counts them: `cpu.stop_request.Request`."""
    entry: int
    """What the guest runs with, or is to be entered with: `cpu.svm_entry.Entry`."""
    reg_read: int
    """C function that reads a register by its number."""
    reg_write: int
    """The same to write one."""
    translate: int
    """C function that tells where code that has just been fetched lies."""
    flags_register: int
    """The number of EFLAGS, which is no address."""
    root_register: int
    """That of CR3; a load of it drops every translation."""
    code_register: int
    """That of CS."""
    stub: int
    """Linear address of code that is not the guest's, by which it is entered."""
    modes_known: bool
    """The mode flags follow from the segments by `cpu.mode_flags`."""
    stop: int
    """C function: the CPU stops before the guest's next block."""
    slow: int
    """C function: the hook of all exits that are not served."""
    slow_syscall: int
    """So of SYSCALL."""
    slow_in: int
    """So of IN, of a port that the guard is to be asked for."""
    slow_out: int


class ExitServer(Protocol):
    """Compiled code that serves exits in the CPU's hook (`vcpu/quick_hook`). Addresses are of C functions and data."""

    @property
    def hook(self) -> int:
        """void hook(void *engine, uint32_t number, void *data)"""

    @property
    def syscall_hook(self) -> int:
        """void hook(void *engine, void *data), called in the midst of a SYSCALL: behind it the CPU steps over what is at RIP"""

    @property
    def in_hook(self) -> int:
        """uint32_t hook(void *engine, uint32_t port, int size, void *data)"""

    @property
    def out_hook(self) -> int:
        """void hook(void *engine, uint32_t port, int size, uint32_t value, void *data)"""

    @property
    def translated_hook(self) -> int:
        """void hook(void *engine, block *translated, block *before, void *data): a block of code was translated"""

    @property
    def data(self) -> int: ...

    def may_be_code(self, hpa: int, size: int) -> bool:
        """Code may have been translated from this host memory."""

    def attach(self, places: "Places") -> None:
        """Before the first run."""

    def prepare(self) -> None:
        """For the next run."""

    def take_state(self) -> "State | None":
        """With what the guest is to be entered, if the server has left it to the next run."""

    def pause(self) -> None:
        """Serve no more in this run."""


class Cpu(Protocol):
    """A CPU back end."""

    def state(self) -> State:
        """The guest's registers now. Change them, then hand them to `set_state`."""

    def set_state(self, state: State) -> None: ...

    def vector(self, number: int) -> int:
        """The 128 bits of an XMM register."""

    def set_vector(self, number: int, value: int) -> None: ...

    def mmx(self, number: int) -> int:
        """The 64 bits of an MMX register."""

    def set_mmx(self, number: int, value: int) -> None: ...

    def breakpoint_at(self, number: int) -> int:
        """DR0 to DR3."""

    def set_controls(self, controls: Controls) -> None:
        """Real control registers of the next run; loading CR3 alone flushes nothing the caller may rely on."""

    def set_intercepts(self, intercepts: Intercepts) -> None:
        """What leaves the guest in the next run."""

    @property
    def cr3(self) -> int:
        """CR3 now: with nested paging the guest changes it by itself."""

    def flush_all(self) -> None:
        """Drop every translation."""

    def flush_page(self, gva: int) -> None:
        """Drop the translations of one address."""

    def code_changed(self, hpa: int, size: int) -> None:
        """Host memory that may hold guest code was written by something else than this CPU's guest."""

    def all_code_changed(self) -> None:
        """The same for all of memory."""

    def run(self, until: int | None = None) -> Exit:
        """Run the guest until it exits. It also stops, as if HLT stood there, before an instruction at linear address `until`."""

    @property
    def on_raw_state(self) -> bool:
        """What serves exits in its hook reads and writes the processor's own state, and no copy."""

    @property
    def open_ports(self) -> "Ports | None":
        """For INS and OUTS that the machine does; None: those of this guest are asked for one by one."""

    @property
    def executed(self) -> int:
        """Instructions that it has begun so far."""

    def stop_at(self, executed: int) -> None:
        """Let no run begin a block of code beyond so many instructions: it returns INTERRUPTED."""

    def stop_exactly(self) -> None:
        """From now on `stop_at` and `stop` are obeyed before each instruction, and not only before a block. That is slow."""

    @property
    def running(self) -> bool:
        """A hook of its `run` is being called."""

    def stop(self) -> None:
        """From any thread or hook: make this `run`, or the next one, return INTERRUPTED before the guest's next block of code, or
        behind an access to a port."""
