# SPDX-License-Identifier: GPL-2.0-only
"""Where things lie in Unicorn's saved processor context, found by running a guest with telling values.

The context is opaque by contract, and the one public way to a #PF error code and to the hidden parts of segment
registers. Nothing is assumed of its layout but the shape of a segment; what is not found exactly once is an error.
"""

import ctypes
import struct
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import uclib

from shadowmmu.machine.cpu.mode_flags import ModeFlag, mode_flags
from shadowmmu.machine.cpu.raw_state import RawState
from shadowmmu.machine.cpu.unicorn_host import HOST_CR0, HOST_CR4, HOST_EFER, INTERRUPT_HOOK, NEVER, PRIVATE_BASE, SvmHost, address_of
from shadowmmu.machine.intercepts import SHADOW_PAGING
from shadowmmu.machine.seam import MASK32, Controls, CpuError, Places, Seg, Segment, State, System, Table
from shadowmmu.x86.control import Cr4

SEGMENT_SIZE = 24  # u32 selector, 4 bytes of padding, u64 base, u32 limit, u32 flags
_SEGMENTS = 10  # six segment registers, LDTR, TR, GDTR, IDTR
_EXIT_GP = 0x14D
_HFLAGS_SEEN = 0x30C003  # guest mode, SVME, 64-bit code, long mode, CPL 3
_NOT_LONG = 0x1800  # EFER with NXE and SVME
_HALTS = bytes.fromhex("f4f4f4f4")
_PAGE, _LARGE = 4096, 4 << 20
_BAD_SELECTOR = 0xA5D3  # `mov ds, ax` with it raises #GP(0xa5d0)
_TELLING_EFER = 0x7A5F_3333 << 32
"""Bits that no processor has; this engine's VMRUN loads them all the same."""


@dataclass(frozen=True)
class Layout:
    """Byte offsets in the context."""

    gpr: int
    """Sixteen u64."""
    rip: int
    hflags: int
    """u32; its two lowest bits are the CPL, bit 3 is the interrupt shadow."""
    segments: int
    """ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR, `SEGMENT_SIZE` each."""
    cr3: int
    head_end: int
    """End of the part that VMRUN saves and loads: everything up to CR4."""
    dr6: int
    """DR6, then DR7."""
    kernel_gs_base: int
    error_code: int
    """u32: EXITINFO1 of the last exit."""
    efer: int
    """Behind the head: VMRUN takes the NX of nested tables from the one it finds."""
    modes_known: bool
    """The mode flags follow from the segments by `mode_flags`."""


def _telling_state(code: int) -> State:
    """A CPL 3 guest with a different value in everything that is to be found."""
    segments = tuple(
        Segment(0x1003 + 0x10 * i, 0xCF3 if i != 1 else 0xAFB, 0x1230000 + i, 0 if i == 1 else 0x7A510000 + 0x1000 * i) for i in range(6)
    )
    system = System(
        segments,
        Segment(0x2008, 0x82, 0x4321, 0x7A5A0000),
        Segment(0x2018, 0x8B, 0x4322, 0x7A5B0000),
        Table(0x7A5C0000, 0x33),
        Table(0x7A5D0000, 0x44),
        cpl=3,
        dr6=0xFFFF4FF5,
        dr7=0x33330400,
        kernel_gs_base=0x7A5E000011112222,
    )
    gpr = [0x5A17C0DE00000000 + i * 0x01010101 for i in range(16)]
    gpr[0] = 0x111122223333 << 16 | _BAD_SELECTOR
    return State(gpr, code, 0x202, system)


def _segment_bytes(segment: Segment) -> tuple[bytes, bytes, bytes]:
    """Selector, base and limit as they lie in a context."""
    return struct.pack("<I", segment.selector), struct.pack("<Q", segment.base), struct.pack("<I", segment.limit)


class _Search:
    """Finds values in one context."""

    def __init__(self, context: bytes) -> None:
        self.context = context

    def once(self, what: str, wanted: bytes, start: int = 0, end: int | None = None) -> int:
        """The one offset of `wanted`, aligned to 4 bytes."""
        end = len(self.context) if end is None else end
        found = [at for at in range(start, end - len(wanted) + 1, 4) if self.context[at : at + len(wanted)] == wanted]
        if len(found) != 1:
            raise CpuError(
                f"unicorn {unicorn.__version__}: {what} is in its saved context {len(found)} times, not once; install unicorn==2.1.4"
            )
        return found[0]

    def segments(self, system: System) -> int:
        """Offset of the segment array, after a look at each of its members."""
        start = self.once("the base of ES", struct.pack("<Q", system.segments[0].base)) - 8
        tables = [Segment(0, 0, table.limit, table.base) for table in (system.gdtr, system.idtr)]
        for i, segment in enumerate([*system.segments, system.ldtr, system.tr, *tables]):
            at = start + i * SEGMENT_SIZE
            selector, base, limit = _segment_bytes(segment)
            whole = self.context[at : at + SEGMENT_SIZE]
            if (whole[8:16], whole[16:20]) != (base, limit) or (i < 8 and whole[:4] != selector):
                raise CpuError(f"unicorn {unicorn.__version__}: segment {i} is not where it belongs; install unicorn==2.1.4")
        return start

    def hflags(self, start: int, end: int) -> int:
        found = [at for at in range(start, end, 4) if struct.unpack_from("<I", self.context, at)[0] & _HFLAGS_SEEN == _HFLAGS_SEEN]
        if len(found) != 1:
            raise CpuError(f"unicorn {unicorn.__version__}: the mode flags are not in its saved context; install unicorn==2.1.4")
        return found[0]


@cache
def layout() -> Layout:
    """The layout of this process's Unicorn, found once.

    The engine goes with it: nothing here may hold it. Its buffer lies where translated code of the next one is near what it calls.
    """
    host = SvmHost([])
    code = host.write_scratch(bytes.fromhex("8ed8"))  # mov ds, ax
    state = _telling_state(code)
    controls = Controls(HOST_CR0, host.identity_root, HOST_CR4, HOST_EFER | _TELLING_EFER)
    exits: list[int] = []

    def on_exit(_engine: object, number: int, _data: object) -> None:
        exits.append(number)
        host.read_context()  # here: the error code does not outlive the hook
        host.uc.emu_stop()

    hook = INTERRUPT_HOOK(on_exit)
    host.add_compiled_hook(uc_const.UC_HOOK_INTR, address_of(hook), 0)
    host.entry.controls, host.entry.intercepts = controls, SHADOW_PAGING
    host.entry.write(state)
    host.set_registers(state.gpr)
    host.uc.emu_start(host.begin_at_stub(), NEVER)
    if exits != [_EXIT_GP]:
        raise CpuError(f"unicorn {unicorn.__version__}: a guest's #GP gave exits {exits}; install unicorn==2.1.4")
    search = _Search(bytes(host.context))
    gpr = search.once("the general registers", struct.pack("<16Q", *state.gpr))
    segments = search.segments(state.system)
    cr3 = search.once("CR3", struct.pack("<QQ", controls.cr3, controls.cr4))
    found = Layout(
        gpr=gpr,
        rip=search.once("RIP", struct.pack("<Q", code), end=segments),
        hflags=search.hflags(gpr + 16 * 8, segments),
        segments=segments,
        cr3=cr3,
        head_end=cr3 + 16,
        dr6=search.once("DR6", struct.pack("<QQ", state.system.dr6, state.system.dr7)),
        kernel_gs_base=search.once("KERNEL_GS_BASE", struct.pack("<Q", state.system.kernel_gs_base)),
        error_code=search.once("the error code", struct.pack("<I", _BAD_SELECTOR & ~3)),
        efer=search.once("EFER", struct.pack("<Q", controls.efer)),
        modes_known=False,
    )
    host.locate(places_of(host, found))
    return replace(found, modes_known=all(_has_mode(host, found, mode) for mode in _MODES))


def places_of(host: SvmHost, where: Layout, raw: RawState | None = None) -> Places:
    """Addresses of what lies there; nobody is called for exits that are not served. `raw`: the processor's own state, if it is known."""
    context = ctypes.addressof(ctypes.c_ubyte.from_buffer(host.context))
    return Places(
        save=address_of(uclib.uc_context_save) if raw is None else raw.save,
        restore=address_of(uclib.uc_context_restore) if raw is None else raw.restore,
        context=host.context_handle if raw is None else raw.data,
        gpr=context + where.gpr,
        rip=context + where.rip,
        mode=context + where.hflags,
        segments=context + where.segments,
        code_base=context + where.segments + SEGMENT_SIZE * Seg.CS + 8,
        cr3=context + where.cr3,
        head=where.head_end,
        efer=context + where.efer,
        debug=context + where.dr6,
        kernel_gs_base=context + where.kernel_gs_base,
        error_code=context + where.error_code,
        address=host.exit_info_2_at,
        executed=host.stop_request.count,
        request=host.stop_request.data,
        entry=host.entry.data,
        reg_read=address_of(uclib.uc_reg_read),
        reg_write=address_of(uclib.uc_reg_write),
        translate=address_of(uclib.uc_vmem_translate),
        flags_register=x86_const.UC_X86_REG_EFLAGS,
        root_register=x86_const.UC_X86_REG_CR3,
        code_register=x86_const.UC_X86_REG_CS,
        stub=host.stub,
        modes_known=where.modes_known,
        stop=address_of(uclib.uc_emu_stop),
        slow=0,
        slow_syscall=0,
        slow_in=0,
        slow_out=0,
    )


class _Mode(NamedTuple):
    """Attributes of CS and SS, and the base of DS; `long`: in long mode, with the host's own tables."""

    code: int
    stack: int
    cpl: int = 0
    base: int = 0
    long: bool = False


_MODES = (
    _Mode(0xC9B, 0xC93), _Mode(0xC9B, 0xC93, base=0x1000), _Mode(0xCFB, 0xCF3, cpl=3), _Mode(0x89B, 0xC93), _Mode(0xC9B, 0x893),
    _Mode(0xA9B, 0xC93, long=True), _Mode(0xA9B, 0x000, long=True), _Mode(0xAFB, 0xCF3, cpl=3, long=True),
    _Mode(0xCFB, 0xCF3, cpl=3, long=True), _Mode(0xCFB, 0xCF3, cpl=3, base=0x1000, long=True),
)  # fmt: skip


def _directory() -> bytes:
    """2-level tables of a guest: a page of 4 MiB that leads to the private region, where that is."""
    at = PRIVATE_BASE // _LARGE
    return bytes(4 * at) + struct.pack("<I", PRIVATE_BASE | 0x87)


def _has_mode(host: SvmHost, where: Layout, mode: _Mode) -> bool:
    """Run a guest in this mode until it exits, by HLT: whether the processor makes of it what `mode_flags` does."""
    page = host.write_scratch(_HALTS.ljust(_PAGE, b"\0") + _directory())
    code = page + len(_HALTS) - 1  # from where nothing has been translated yet
    data = Segment(0x10, 0xC93 | mode.cpl << 5, MASK32, mode.base)
    segments = (data, Segment(0x8, mode.code, MASK32, 0), Segment(0x10, mode.stack, MASK32, 0), data, data, data)
    system = System(segments, Segment(0, 0x82, 0, 0), Segment(0, 0x8B, 0, 0), Table(0, 0), Table(0, 0), mode.cpl, 0xFFFF0FF0, 0x400, 0)
    controls = Controls(HOST_CR0, page + _PAGE, int(Cr4.PSE), _NOT_LONG)
    if mode.long:
        controls = Controls(HOST_CR0, host.identity_root, HOST_CR4, HOST_EFER)
    host.read_context()
    host.to_host([0] * 16, system.dr7)
    host.entry.controls = controls
    host.entry.write(State([0] * 16, code, 0x2, system))
    host.uc.emu_start(host.begin_at_stub(), NEVER)
    host.read_context()
    found: int = struct.unpack_from("<I", host.context, where.hflags)[0]
    code_flags, stack_flags = (
        struct.unpack_from("<I", host.context, where.segments + SEGMENT_SIZE * number + 20)[0] for number in (Seg.CS, Seg.SS)
    )
    derived = ModeFlag.CPL | ModeFlag.CODE_32 | ModeFlag.STACK_32 | ModeFlag.ADD_BASES | ModeFlag.CODE_64
    return mode_flags(found ^ derived, code_flags, stack_flags, mode.base, mode.cpl, mode.long) == found
