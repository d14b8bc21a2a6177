# SPDX-License-Identifier: GPL-2.0-only
"""Unicorn as a bare AMD-V processor: an engine in host mode, ready to VMRUN.

Host memory is mapped in place. A small private region holds what a hypervisor needs of its own: the VMCB, the host
save area, permission maps, host page tables that map everything one to one, and a stub of two instructions.
Unicorn never does a #VMEXIT: it calls the interrupt hook with 0x100 + exit code and leaves the guest's registers in
place. So a guest is left by restoring the *head* of the processor context (general registers to CR4) as it was in
host mode; the rest of the context (FPU, SSE, debug registers) stays the guest's.
"""

import ctypes
import mmap
import struct
from collections.abc import Sequence
from typing import Any

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3 import Uc, UcError
from unicorn.unicorn_py3.unicorn import uclib

from shadowmmu.machine.cpu.blocks import Blocks
from shadowmmu.machine.cpu.stop_request import StopRequest
from shadowmmu.machine.cpu.svm_entry import SvmEntry
from shadowmmu.machine.seam import CpuError, Places, Reg
from shadowmmu.x86.msr import EFER, VM_HSAVE_PA
from shadowmmu.x86.vmcb import Vmcb

PRIVATE_BASE = 0xE000_0000
"""Host physical address of the private region; the low zone of host memory must end below it."""
PRIVATE_SIZE = 0x10000
NEVER = 1 << 63  # not canonical: no guest gets there
HOST_EFER, HOST_CR0, HOST_CR4 = 0x1D01, 0x80010001, 0x620  # SCE LME LMA NXE SVME; PG WP PE; PAE OSFXSR OSXMMEXCPT

# Offsets in the private region.
_VMCB, _HSAVE, _LEAD, _PML4, _PDPT, _IOPM, _MSRPM, _GDT, SCRATCH = 0x0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000, 0xA000, 0xB000
_LEAD_CODE = bytes.fromhex("0f23f8 48b8") + struct.pack("<Q", PRIVATE_BASE + _VMCB)  # mov dr7, rax; mov rax, the VMCB
_STUB_CODE = bytes.fromhex("0f01da 0f01d8")  # vmload rax; vmrun rax
_SEGMENT_CODE = bytes.fromhex("66b81000 8ed8 8ec0 8ed0 48cb")  # mov ax,16; mov ds,ax; mov es,ax; mov ss,ax; retfq
_PDPT_ENTRIES = 512
_EVERYWHERE = (1, 0)
"""First and last address of a hook that has no bounds."""

CODE_BUFFER, SPARE = 1 << 30, 64 << 20
"""What each engine reserves for translated code, and what it may want beside it."""

_GPR = tuple(
    getattr(x86_const, f"UC_X86_REG_{name}")
    for name in ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15")
)


def _look_for_room() -> None:
    """Raises CpuError if Unicorn could not have its buffer for translated code: it would end the process."""
    try:
        mmap.mmap(-1, CODE_BUFFER + SPARE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except (OSError, ValueError):
        raise CpuError(
            "no room for a vCPU: Unicorn reserves 1 GiB of address space for each; raise ulimit -v, or give the guest fewer vcpus"
        ) from None


INTERRUPT_HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)


def address_of(function: Any) -> int:
    """Of a C function. `ctypes.cast` would make it hold itself."""
    return ctypes.c_void_p.from_buffer(function).value or 0


class SvmHost:
    """An engine in host mode. `regions`: host memory as (hpa, size, address in this process)."""

    def __init__(self, regions: Sequence[tuple[int, int, int]]) -> None:
        _look_for_room()
        self.uc: Any = Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64, x86_const.UC_CPU_X86_EPYC_ROME)
        self._private = mmap.mmap(-1, PRIVATE_SIZE)
        self.entry = SvmEntry(self._private_at + _VMCB, PRIVATE_BASE + _VMCB, PRIVATE_BASE + _LEAD, self.stub)
        self._map(regions)
        self._build_private(max((hpa + size for hpa, size, _ in regions), default=0))
        put = struct.pack_into
        put("<QQ", self._private, _VMCB + Vmcb.IOPM_BASE, PRIVATE_BASE + _IOPM, PRIVATE_BASE + _MSRPM)
        put("<I", self._private, _VMCB + Vmcb.GUEST_ASID, 1)
        self._enter_host_mode()
        self.stop_request = StopRequest(address_of(uclib.uc_emu_stop), address_of(uclib.uc_reg_read), x86_const.UC_X86_REG_EFLAGS)
        self.blocks = self._count(regions)
        self._context = self.uc.context_save()
        size = self._context.size
        address = ctypes.cast(self._context.context, ctypes.c_void_p).value or 0
        self.context = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
        """The processor context as of the last `read_context`."""
        self._host_context = bytes(self.context)

    def _map(self, regions: Sequence[tuple[int, int, int]]) -> None:
        for hpa, size, address in (*regions, (PRIVATE_BASE, PRIVATE_SIZE, self._private_at)):
            if hpa < PRIVATE_BASE + PRIVATE_SIZE and hpa + size > PRIVATE_BASE and hpa != PRIVATE_BASE:
                raise CpuError(
                    f"host memory {hpa:#x}+{size:#x} covers the CPU's own region at {PRIVATE_BASE:#x}; make the low zone smaller"
                )
            self.uc.mem_map_ptr(hpa, size, uc_const.UC_PROT_ALL, address)

    def _build_private(self, top: int) -> None:
        put = struct.pack_into
        put("<Q", self._private, _PML4, PRIVATE_BASE + _PDPT | 7)
        gigabytes = min(_PDPT_ENTRIES, max(4, -(-top >> 30)))
        for i in range(gigabytes):
            put("<Q", self._private, _PDPT + 8 * i, i << 30 | 0x87)
        self._private[_IOPM:_GDT] = b"\xff" * (_GDT - _IOPM)
        self._private[_LEAD : _LEAD + len(_LEAD_CODE) + len(_STUB_CODE)] = _LEAD_CODE + _STUB_CODE
        put("<QQQ", self._private, _GDT, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)

    def _enter_host_mode(self) -> None:
        """64-bit mode with real descriptors in CS, DS, ES, SS."""
        uc = self.uc
        uc.reg_write(x86_const.UC_X86_REG_CR4, HOST_CR4)
        uc.msr_write(EFER, HOST_EFER)
        uc.msr_write(VM_HSAVE_PA, PRIVATE_BASE + _HSAVE)
        uc.reg_write(x86_const.UC_X86_REG_CR3, PRIVATE_BASE + _PML4)
        uc.reg_write(x86_const.UC_X86_REG_CR0, HOST_CR0)
        uc.reg_write(x86_const.UC_X86_REG_GDTR, (0, PRIVATE_BASE + _GDT, 0x17, 0))
        code, stack, end = SCRATCH, SCRATCH + 0x100, PRIVATE_BASE + SCRATCH + 0x80
        self._private[code : code + len(_SEGMENT_CODE)] = _SEGMENT_CODE
        struct.pack_into("<QQ", self._private, stack, end, 8)
        uc.reg_write(x86_const.UC_X86_REG_RSP, PRIVATE_BASE + stack)
        uc.emu_start(PRIVATE_BASE + code, end)

    def write_scratch(self, data: bytes) -> int:
        """Put bytes into a spare page of the private region; its host physical address."""
        self._private[SCRATCH : SCRATCH + len(data)] = data
        return PRIVATE_BASE + SCRATCH

    @property
    def identity_root(self) -> int:
        """Host physical address of the host's own page tables."""
        return PRIVATE_BASE + _PML4

    @property
    def stub(self) -> int:
        """Linear address of the stub, in a page of its own."""
        return PRIVATE_BASE + _LEAD + len(_LEAD_CODE)

    # --- the VMCB

    @property
    def exit_info_2(self) -> int:
        """EXITINFO2; for a #PF exit the faulting address, for a nested page fault the guest physical one."""
        value: int = struct.unpack_from("<Q", self._private, _VMCB + Vmcb.EXIT_INFO_2)[0]
        return value

    @property
    def exit_info_2_at(self) -> int:
        """Its address in this process."""
        return self._private_at + _VMCB + Vmcb.EXIT_INFO_2

    @property
    def _private_at(self) -> int:
        """The private region's address in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._private))

    # --- the processor context

    @property
    def context_handle(self) -> int:
        """The context as `uc_context_save` takes it."""
        return ctypes.cast(self._context.context, ctypes.c_void_p).value or 0

    def read_context(self) -> None:
        self.uc.context_update(self._context)

    def write_context(self) -> None:
        self.uc.context_restore(self._context)

    def locate(self, places: Places) -> None:
        """Where things lie in the context."""
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(self.context))
        self.entry.attach(address, self._host_context, HOST_EFER, places)
        self.stop_request.attach(places)
        self.blocks.attach(places)

    def to_host(self, gpr: list[int], dr7: int) -> None:
        """Host mode again, ready to VMRUN, with the guest's general, FPU and debug registers. The context must have been read."""
        self.entry.leave(self.uc._uch.value, gpr, dr7)

    def set_registers(self, gpr: list[int]) -> None:
        """The same for an engine whose layout is not known yet."""
        for register, value in zip(_GPR, gpr, strict=True):
            self.uc.reg_write(register, value)
        self.uc.reg_write(_GPR[Reg.RAX], PRIVATE_BASE + _VMCB)

    def begin_at_stub(self) -> int:
        """Where the engine is to start now in order to enter the guest."""
        return self.stub

    def _count(self, regions: Sequence[tuple[int, int, int]]) -> Blocks:
        """Hook every block, which also lets a stop that is asked for take effect before the next one."""
        blocks = Blocks(self.stop_request, regions, address_of(uclib.uc_vmem_translate), self.stub >> 12)
        blocks.hooked(self.add_compiled_hook(uc_const.UC_HOOK_BLOCK, self.stop_request.hook, blocks.first))
        self.add_compiled_hook(uc_const.UC_HOOK_EDGE_GENERATED, blocks.translated_hook, blocks.data)
        return blocks

    def add_compiled_hook(self, kind: int, hook: int, data: int, *, instruction: int = 0, where: tuple[int, int] = _EVERYWHERE) -> int:
        """A hook that is a C function: addresses of it and of what it is to be given; of one `instruction`, for a hook of such; at the
        addresses from the first to the last. Returns where the engine's own record of it lies."""
        handle = ctypes.c_size_t()
        first, last = (ctypes.c_uint64(address) for address in where)
        what = ctypes.c_int(kind), ctypes.c_void_p(hook), ctypes.c_void_p(data)
        error = uclib.uc_hook_add(self.uc._uch, ctypes.byref(handle), *what, first, last, ctypes.c_int(instruction))
        if error != uc_const.UC_ERR_OK:
            raise CpuError(f"the CPU takes no compiled hook: error {error}; install unicorn==2.1.4")
        return handle.value

    def watch_ports(self) -> None:
        """Hook instructions that reach ports and have just been translated, before they run."""
        for data, *where in self.blocks.watch():
            self.add_compiled_hook(uc_const.UC_HOOK_CODE, self.blocks.port_hook, data, where=(where[0], where[1]))
        self.forget_all_code()

    def forget_all_code(self) -> None:
        """Drop all translated code."""
        self.uc.ctl_flush_tb()
        self.blocks.forget()

    def flush(self) -> None:
        """Drop every translation."""
        self.uc.ctl(uc_const.UC_CTL_TLB_FLUSH, uc_const.UC_CTL_IO_WRITE)

    def forget_code(self, hpa: int, size: int) -> None:
        """Drop code translated from host memory. In host mode only: the engine takes a linear address."""
        try:
            self.uc.ctl_remove_cache(hpa, hpa + size)
        except UcError as error:
            raise CpuError(f"code at host physical {hpa:#x} cannot be dropped: {error}; report this as a bug") from error
