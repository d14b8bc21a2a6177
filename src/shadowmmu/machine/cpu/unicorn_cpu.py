# SPDX-License-Identifier: GPL-2.0-only
"""The default CPU back end: Unicorn 2.1.4 as an AMD EPYC, the guest always under VMRUN. Public API only, but for what serves
exits in its hook, which reads and writes the processor's own state where that is known (`unicorn_raw`).

An exit is taken in place: the interrupt hook reads the processor context (the error code does not outlive the hook)
and stops the engine. A run goes on from there, unless something changed that only VMRUN loads - segments, control
registers other than CR3 - and then enters the guest anew.

What this processor does otherwise than a real one:
* a load of CR3 and a flush of one page drop every translation, so a flush that was forgotten may not show;
* SYSCALL is left to the machine; RDRAND and the debug registers are the engine's own.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3 import UcError

from shadowmmu.machine.cpu.unicorn_exits import HOOKED, exit_of
from shadowmmu.machine.cpu.unicorn_host import INTERRUPT_HOOK, NEVER, SvmHost, address_of
from shadowmmu.machine.cpu.unicorn_layout import SEGMENT_SIZE, layout, places_of
from shadowmmu.machine.cpu.unicorn_raw import find_raw_state
from shadowmmu.machine.cpu.unicorn_segments import put_mode, segments_of
from shadowmmu.machine.intercepts import SHADOW_PAGING
from shadowmmu.machine.seam import (
    MASK32,
    MASK64,
    Controls,
    CpuError,
    Exit,
    ExitKind,
    ExitServer,
    Intercepts,
    PortGuard,
    Ports,
    Seg,
    State,
    System,
)
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.vmcb import Intercept1, SvmExit

_PE, _LMA, _VM, _VINTR = int(Cr0.PE), int(Efer.LMA), int(Rflags.VM), int(Intercept1.VINTR)
_MMX_EXPONENT = 0xFFFF  # of the FPU register that an MMX register is the mantissa of
_INTERRUPT_SHADOW = 1 << 3  # in the mode flags
_NO_BREAKPOINTS = 0x400  # DR7
_SLOW_HOOKS = (
    INTERRUPT_HOOK,
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p),
    ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p),
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p),
)
"""Of interrupts, SYSCALL, IN and OUT."""
_STOPPED = Exit(ExitKind.INTERRUPTED)
_WINDOW = Exit(ExitKind.INTERRUPT_WINDOW, int(SvmExit.VINTR))
_GOES_ON = Exit(ExitKind.INTERRUPT_WINDOW)
"""No exit: interrupts are on, but not before the next instruction, or code has to be translated anew."""


class UnicornCpu:
    """One vCPU's processor.

    regions     host memory as (hpa, size, address in this process)
    ports       the I/O port space
    guard       asked for IN and OUT outside ring 0, and for all while IOIO is intercepted
    intercepts  what leaves the guest at first
    server      serves exits that need no Python
    raw_state   it may do so on the processor's own state
    """

    def __init__(
        self,
        regions: Sequence[tuple[int, int, int]],
        ports: Ports,
        guard: PortGuard,
        intercepts: Intercepts = SHADOW_PAGING,
        server: ExitServer | None = None,
        *,
        raw_state: bool = True,
    ) -> None:
        self._layout = layout()
        self._host = SvmHost(regions)
        self._raw = find_raw_state(self._host, self._layout) if raw_state and server is not None else None
        self._places = places_of(self._host, self._layout, self._raw)
        self._host.locate(self._places)
        self._entry = self._host.entry
        self._uc: Any = self._host.uc
        self._ports, self._guard, self._server = ports, guard, server
        self._entry.intercepts = intercepts
        self._pending: State | None = None  # to be loaded by VMRUN
        self._captured: State | None = None  # what `state` gave since the last run
        self._rip = 0
        self._exit: Exit | None = None
        self._refused: bytes | None = None  # the context at a port access that was not done
        self._asked_before = False  # a stop was, when that was met
        self._system_key: object = None
        self._system: System | None = None
        self._changed_code: list[tuple[int, int]] = []
        self._unmapped = 0
        self._loads_shadow = False  # VMRUN is to load an interrupt shadow
        self.running = False
        self._raised: BaseException | None = None  # by a hook that the server has called
        self._add_hooks()

    def _add_hooks(self) -> None:
        add = self._uc.hook_add
        if self._server is None:
            add(uc_const.UC_HOOK_INTR, self._on_interrupt)
            add(uc_const.UC_HOOK_INSN, self._on_syscall, aux1=x86_const.UC_X86_INS_SYSCALL)
            add(uc_const.UC_HOOK_INSN, self._on_in, aux1=x86_const.UC_X86_INS_IN)
            add(uc_const.UC_HOOK_INSN, self._on_out, aux1=x86_const.UC_X86_INS_OUT)
        else:
            self._put_before(self._server)
        add(uc_const.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)

    def _put_before(self, server: ExitServer) -> None:
        """Let the server see an exit or an access to a port first, and what it does not serve come here."""
        add = self._host.add_compiled_hook
        ours: tuple[Callable[..., object], ...] = (self._on_interrupt, self._on_syscall, self._on_in, self._on_out)
        self._slow = tuple(kind(self._keeping(hook)) for kind, hook in zip(_SLOW_HOOKS, ours, strict=True))
        slow, slow_syscall, slow_in, slow_out = (address_of(hook) for hook in self._slow)
        server.attach(self._places._replace(slow=slow, slow_syscall=slow_syscall, slow_in=slow_in, slow_out=slow_out))
        add(uc_const.UC_HOOK_INTR, server.hook, server.data)
        add(uc_const.UC_HOOK_INSN, server.syscall_hook, server.data, instruction=x86_const.UC_X86_INS_SYSCALL)
        add(uc_const.UC_HOOK_INSN, server.in_hook, server.data, instruction=x86_const.UC_X86_INS_IN)
        add(uc_const.UC_HOOK_INSN, server.out_hook, server.data, instruction=x86_const.UC_X86_INS_OUT)
        add(uc_const.UC_HOOK_EDGE_GENERATED, server.translated_hook, server.data)

    def _keeping(self, hook: Callable[..., object]) -> Callable[..., object]:
        """The hook, called by the server; nobody above it would see what it raises."""

        def call(_engine: object, *arguments: object) -> object:
            try:
                return hook(self._uc, *arguments)
            except BaseException as error:
                self._raised = error
                self._uc.emu_stop()
                return 0

        return call

    # --- hooks, called while the engine runs

    def _on_interrupt(self, uc: Any, number: int, _data: object) -> None:
        if self._refused is None:
            self._host.read_context()
            self._host.stop_request.left()
            self._exit = self._decode(number - HOOKED)
        uc.emu_stop()

    def _decode(self, code: int) -> Exit:
        error: int = struct.unpack_from("<I", self._host.context, self._layout.error_code)[0]
        return exit_of(code, error, self._host.exit_info_2, self._wrap)

    @property
    def _wrap(self) -> int:
        """Of the address of a #PF: below long mode it walks for a sum of base and offset that has wrapped, and tells the sum."""
        return MASK64 if self._entry.controls.efer & _LMA else MASK32

    def _on_syscall(self, uc: Any, _data: object) -> None:
        self._host.read_context()
        self._host.stop_request.left()
        self._exit = Exit(ExitKind.SYSCALL, gva=uc.reg_read(x86_const.UC_X86_REG_RIP))
        uc.emu_stop()

    def _on_in(self, uc: Any, port: int, size: int, _data: object) -> int:
        return self._ports.read(port, size) if self._port_passes(uc, port, size) else 0

    def _on_out(self, uc: Any, port: int, size: int, value: int, _data: object) -> None:
        if self._port_passes(uc, port, size):
            self._ports.write(port, size, value)

    def _port_passes(self, uc: Any, port: int, size: int) -> bool:
        if self._refused is not None:
            return False
        if not uc.reg_read(x86_const.UC_X86_REG_CS) & 3 and not self._entry.intercepts.first & Intercept1.IOIO:
            return True
        self._host.read_context()
        self._take_cr3()
        state = self._capture()
        state.rip = uc.reg_read(x86_const.UC_X86_REG_RIP)
        kind = self._guard(state, port, size)
        if kind is None:
            return True
        self._exit = Exit(kind, port, size)
        struct.pack_into("<Q", self._host.context, self._layout.rip, state.rip)
        self._refused = bytes(self._host.context)
        if self._server is not None:
            self._server.pause()
        self._asked_before = self._host.stop_request.wanted
        self._host.stop_request.ask()
        return False

    def _on_unmapped(self, _uc: Any, _access: int, address: int, _size: int, _value: int, _data: object) -> bool:
        self._unmapped = address
        return False

    # --- registers

    def _capture(self) -> State:
        """The state in the context that was read last."""
        where, view = self._layout, self._host.context
        gpr = list(struct.unpack_from("<16Q", view, where.gpr))
        rip: int = struct.unpack_from("<Q", view, where.rip)[0]
        flags: int = self._uc.reg_read(x86_const.UC_X86_REG_EFLAGS)
        return State(gpr, rip, flags, self._capture_system(), interrupt_shadow=self._in_shadow)

    @property
    def _in_shadow(self) -> bool:
        """Of an interrupt."""
        return bool(self._host.context[self._layout.hflags] & _INTERRUPT_SHADOW)

    def _capture_system(self) -> System:
        where, view = self._layout, self._host.context
        cpl = view[where.hflags] & 3
        debug = bytes(view[where.dr6 : where.dr6 + 16])
        gs_base = bytes(view[where.kernel_gs_base : where.kernel_gs_base + 8])
        raw = bytes(view[where.segments : where.segments + 10 * SEGMENT_SIZE])
        hidden = self._entry.hidden
        key = raw, debug, gs_base, cpl, hidden
        if self._system is None or key != self._system_key:
            segments, gdtr, idtr = segments_of(raw)
            dr6, dr7 = struct.unpack("<QQ", debug)
            self._system = System(
                (*segments[:4], self._entry.as_given(Seg.FS, segments[4]), self._entry.as_given(Seg.GS, segments[5])),
                segments[6],
                segments[7],
                gdtr,
                idtr,
                cpl,
                dr6,
                dr7,
                int.from_bytes(gs_base, "little"),
                *hidden,
            )
            self._system_key = key
        return self._system

    def state(self) -> State:
        """The guest's registers now."""
        if self._pending is not None:
            return self._pending.copy()
        if self._captured is None:
            self._captured = self._capture()
            self._captured.rip = self._rip
        return self._captured.copy()

    def set_state(self, state: State) -> None:
        """Take over changed registers; changed segments and their like are loaded by the next run."""
        before = self._captured
        if self._pending is not None or before is None or not self._can_change(before, state):
            self._pending = state.copy()
            return
        if state.system is not before.system:
            put_mode(self._host.context, self._layout, state.system, bool(self._entry.controls.efer & _LMA))
        rewritten = state.system is not before.system or state.gpr != before.gpr or state.interrupt_shadow != before.interrupt_shadow
        if rewritten:
            struct.pack_into("<16Q", self._host.context, self._layout.gpr, *state.gpr)
            self._host.context[self._layout.hflags] &= ~_INTERRUPT_SHADOW
            self._host.context[self._layout.hflags] |= _INTERRUPT_SHADOW if state.interrupt_shadow else 0
            struct.pack_into("<Q", self._host.context, self._layout.cr3, self._entry.controls.cr3)
            self._host.write_context()
        if rewritten or state.rflags != before.rflags:
            self._uc.reg_write(x86_const.UC_X86_REG_EFLAGS, state.rflags)
        self._captured = state.copy()
        self._rip = state.rip

    def _can_change(self, before: State, after: State) -> bool:
        """Of what VMRUN loads only CS, SS and the CPL may be others, in protected mode."""
        if after.system == before.system:
            return True
        old, new = before.system, after.system
        others = (*old.segments[:1], new.segments[1], new.segments[2], *old.segments[3:])
        protected = self._entry.controls.cr0 & _PE and not (before.rflags | after.rflags) & _VM
        return bool(self._layout.modes_known and protected and new == old._replace(segments=others, cpl=new.cpl))

    def vector(self, number: int) -> int:
        """The 128 bits of an XMM register."""
        value: int = self._uc.reg_read(x86_const.UC_X86_REG_XMM0 + number)
        return value

    def set_vector(self, number: int, value: int) -> None:
        self._uc.reg_write(x86_const.UC_X86_REG_XMM0 + number, value)
        self._host.read_context()

    def mmx(self, number: int) -> int:
        """The 64 bits of an MMX register."""
        mantissa: int = self._uc.reg_read(x86_const.UC_X86_REG_FP0 + number)[0]
        return mantissa

    def set_mmx(self, number: int, value: int) -> None:
        self._uc.reg_write(x86_const.UC_X86_REG_FP0 + number, (value, _MMX_EXPONENT))
        self._host.read_context()

    def breakpoint_at(self, number: int) -> int:
        """DR0 to DR3."""
        address: int = self._uc.reg_read(x86_const.UC_X86_REG_DR0 + number)
        return address

    def set_controls(self, controls: Controls) -> None:
        """Real control registers of the next run."""
        old = self._entry.controls
        if controls == old:
            return
        if self._pending is None:
            if controls._replace(cr3=old.cr3) == old:
                self._uc.reg_write(x86_const.UC_X86_REG_CR3, controls.cr3)
            else:
                self._pending = self.state()
        self._entry.controls = controls

    def set_intercepts(self, intercepts: Intercepts) -> None:
        """What leaves the guest in the next run; only VMRUN loads it. VINTR is watched for: the processor's own way delivers by itself."""
        self._host.stop_request.watch_window(bool(intercepts.first & _VINTR))
        intercepts = intercepts._replace(first=intercepts.first & ~_VINTR)
        if intercepts != self._entry.intercepts:
            self._pending = self.state()
            self._entry.intercepts = intercepts

    @property
    def on_raw_state(self) -> bool:
        """Exits are served on the processor's own state, and not on contexts that the public API saves."""
        return self._raw is not None

    @property
    def cr3(self) -> int:
        """CR3 now."""
        return self._entry.controls.cr3

    # --- translations and code

    def flush_all(self) -> None:
        """Drop every translation."""
        if self._pending is None:
            self._host.flush()

    def flush_page(self, gva: int) -> None:
        """Drop the translations of one address; here, of all."""
        self.flush_all()

    def code_changed(self, hpa: int, size: int) -> None:
        """Translated code of this memory is dropped before the next run."""
        if self._server is not None and not self._server.may_be_code(hpa, size):
            return
        changed = self._changed_code
        if changed:
            last, length = changed[-1]
            if last <= hpa + size and hpa <= last + length:  # as the pushes of one frame do
                start = min(last, hpa)
                changed[-1] = start, max(last + length, hpa + size) - start
                return
        changed.append((hpa, size))

    def all_code_changed(self) -> None:
        """All translated code is dropped."""
        self._host.forget_all_code()

    def _forget_code(self) -> None:
        for hpa, size in self._changed_code:
            self._host.forget_code(hpa, size)
        self._changed_code.clear()

    # --- running

    def _prepare(self) -> int:
        """Bring the engine to where it is to start; the address for it to start at."""
        host = self._host
        if self._pending is not None:
            state, self._pending = self._pending, None
            host.read_context()
            host.to_host(state.gpr, state.system.dr7)
            self._forget_code()
            host.entry.write(state)
            self._system, self._system_key = state.system, None
            self._loads_shadow = state.interrupt_shadow
            return host.entry.start()
        if self._changed_code:
            host.read_context()
            guest = bytes(host.context)
            host.to_host([0] * 16, _NO_BREAKPOINTS)
            self._forget_code()
            host.context[:] = guest
            host.write_context()
            host.flush()
        return self._rip

    def run(self, until: int | None = None) -> Exit:
        """Run the guest until it exits. It also stops, as if HLT stood there, before an instruction at linear address `until`."""
        while True:
            start = self._prepare()
            self._captured = self._exit = None
            if self._server is not None:
                self._server.prepare()
            if self._loads_shadow:
                self._enter_in_shadow(start)
            else:
                self._emulate(start, NEVER if until is None else until)
            exit_ = self._finish()
            if exit_ is not _GOES_ON:
                return exit_

    def _enter_in_shadow(self, start: int) -> None:
        """This engine's VMRUN loads no interrupt shadow: the guest is entered, and gets it there before its first block."""
        host, self._loads_shadow = self._host, False
        asked = host.stop_request.wanted
        if self._server is not None:
            self._server.pause()
        host.stop_request.ask()
        self._emulate(start, NEVER)
        if not asked:
            host.stop_request.served()
        if self._exit is None:
            host.read_context()
            self._exit = _GOES_ON
        host.context[self._layout.hflags] |= _INTERRUPT_SHADOW
        host.write_context()

    def _emulate(self, start: int, until: int) -> None:
        self.running = True
        try:
            self._host.blocks.run_until(until)
            self._uc.emu_start(start, until)
        except UcError as error:
            rip, outside = self._uc.reg_read(x86_const.UC_X86_REG_RIP), self._unmapped
            raise CpuError(f"the CPU stopped at RIP {rip:#x}: {error}; last address outside host memory: {outside:#x}") from error
        finally:
            self.running = False
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    def _finish(self) -> Exit:
        where, host = self._layout, self._host
        self._pending = None if self._server is None else self._server.take_state()
        if self._pending is not None:
            host.stop_request.served()
            return _STOPPED
        if self._refused is not None:
            host.context[:] = self._refused
            host.write_context()
            self._refused = None
            if not self._asked_before:
                host.stop_request.served()
        elif self._exit is None or self._exit.kind is ExitKind.SYSCALL:
            host.read_context()
        self._rip = struct.unpack_from("<Q", host.context, where.rip)[0]
        if not self._take_cr3():
            self._pending = self.state()  # so that VMRUN loads the right one
            return Exit(ExitKind.TASK_SWITCH)
        return self._stopped() if self._exit is None else self._exit

    def _stopped(self) -> Exit:
        """Between two instructions; why."""
        request = self._host.stop_request
        if self._host.blocks.stopped:
            self._host.watch_ports()
            return _GOES_ON
        exit_ = _WINDOW if request.opened else _STOPPED
        if exit_ is _WINDOW and self._in_shadow:
            request.skip_one()
            return _GOES_ON
        request.served()
        return exit_

    def _take_cr3(self) -> bool:
        """Note the CR3 of the context. False: with shadow paging it is not the guest's to change, but a task switch did."""
        cr3: int = struct.unpack_from("<Q", self._host.context, self._layout.cr3)[0]
        controls = self._entry.controls
        if controls.ncr3:
            self._entry.controls = controls._replace(cr3=cr3)
        return bool(controls.ncr3) or cr3 == controls.cr3

    @property
    def open_ports(self) -> Ports | None:
        """The I/O port space, unless IOIO is intercepted."""
        return None if self._entry.intercepts.first & Intercept1.IOIO else self._ports

    @property
    def executed(self) -> int:
        """Instructions so far."""
        return self._host.stop_request.executed

    def stop_at(self, executed: int) -> None:
        """Let no run begin a block beyond so many instructions: it returns INTERRUPTED."""
        self._host.stop_request.stop_at(executed)

    def stop_exactly(self) -> None:
        """From now on stop before an instruction, not only before a block."""
        if self._host.blocks.watch_all():
            self._host.watch_ports()

    def stop(self) -> None:
        """From any thread or hook: make this `run`, or the next one, return INTERRUPTED before the guest's next block, or behind an
        access to a port."""
        self._host.stop_request.ask()
