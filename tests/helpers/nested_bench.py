# SPDX-License-Identifier: GPL-2.0-only
"""A tiny hypervisor for tests: L1 is one VMRUN and a HLT, everything else is put into memory from here.

L1 maps all of its memory to itself, in 4-level, PAE or 2-level form; so do its nested tables, page by page where L2's
things lie. Addresses below are L1 physical, and L2 physical at first.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

from shadowmmu.check.audit import audit
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.machine.loader import Guest, Loaded, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import GuestResult
from shadowmmu.machine.seam import Reg, Seg, Segment, State, Table
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.vmcb import Intercept1, Intercept2, SvmExit, Vmcb

MEMORY = 8 << 20
L1_CODE, L1_STACK, VMCB, IOPM, MSRPM = 0x10000, 0x18000, 0x20000, 0x24000, 0x28000
L1_ROOT, NESTED_ROOT, L2_ROOT = 0x30000, 0x40000, 0x50000  # 16 pages each
L2_CODE, L2_DATA, L2_STACK, L2_TABLES = 0x200000, 0x202000, 0x205000, 0x206000
HLT = "f4"
VMMCALL = "0f01d9"
ON = int(Cr0.PG | Cr0.PE | Cr0.ET)
REGISTERS = {  # CR0, CR4, EFER
    "4-level": (ON, int(Cr4.PAE), int(Efer.LME | Efer.LMA | Efer.NXE)),
    "5-level": (ON, int(Cr4.PAE | Cr4.LA57), int(Efer.LME | Efer.LMA | Efer.NXE)),
    "pae": (ON, int(Cr4.PAE), int(Efer.NXE)),
    "2-level": (ON, int(Cr4.PSE), 0),
    "unpaged": (int(Cr0.PE | Cr0.ET), 0, 0),
}
FLAT = {"4-level": 0xA9B, "5-level": 0xA9B, "pae": 0xC9B, "2-level": 0xC9B, "unpaged": 0xC9B}


class Tables:
    """Page tables in one of three forms, written into guest memory; entries are addressed by what they map."""

    def __init__(self, bench: Bench, root: int, form: str) -> None:
        self.bench, self.root, self.form = bench, root, form
        self.size = 4 if form == "2-level" else 8
        shifts = {"5-level": (48, 39, 30, 21, 12), "4-level": (39, 30, 21, 12), "pae": (30, 21, 12), "2-level": (22, 12)}[form]
        self.steps = [(shift, (1 << (10 if form == "2-level" else 9)) - 1) for shift in shifts]
        self.next = root + 0x1000

    def entry(self, address: int, level: int = 1) -> int:
        """Where the entry of `level` for `address` lies; missing tables are made."""
        table = self.root
        for depth, (shift, mask) in enumerate(self.steps):
            at = table + (address >> shift & mask) * self.size
            if depth == len(self.steps) - level:
                return at
            value = self.bench.load(at, self.size)
            if not value & 1:
                value = self.next | (1 if self.form == "pae" and depth == 0 else 7)
                self.next += 0x1000
                self.bench.store(at, value, self.size)
            table = value & -0x1000 & (1 << 52) - 1
        raise AssertionError

    def map(self, address: int, target: int, flags: int = 7, level: int = 1) -> None:
        self.bench.store(self.entry(address, level), target | flags, self.size)

    def identity(self) -> Tables:
        """The first 2 MiB, then 4 MiB of 4K pages around L2's things, whatever the form."""
        for address in range(0, 0x400000, 0x1000):
            self.map(address, address)
        return self


class Bench:
    """An L1 in `form`, with nested paging (`npt`) or without; every exit is audited, and so served in Python, or the end of each run."""

    audits_each = True

    def __init__(
        self,
        form: str = "4-level",
        *,
        npt: bool = True,
        roots: str = "special",
        vcpus: int = 1,
        kernel: str = DEFAULT_KERNEL,
        platform: Literal["bare", "pc"] = "bare",
        without: tuple[str, ...] = (),
    ) -> None:
        features = ("svm", "npt") if npt else ("svm",)
        guest = Guest(
            name="l1",
            image="none",
            features=features,
            without=without,
            memory_mib=MEMORY >> 20,
            vcpus=vcpus,
            format="flat",
            platform=platform,
        )
        self.form, self.npt = form, npt
        loaded = load_bytes(guest, b"\xf4")
        self.machine = Machine(
            guest, roots=roots, kernel=kernel, loaded=Loaded((), loaded.state, loaded.cr0), audit=self._audit if self.audits_each else None
        )
        self.vm, self.vcpu = self.machine.vm, self.machine.vm.vcpus[0]
        self.processor = self.machine.processors[0]
        self.put(L1_CODE, "0f01d8" + HLT)
        Tables(self, L1_ROOT, form).identity()
        self.nested = Tables(self, NESTED_ROOT, form).identity()
        cr0, cr4, efer = REGISTERS[form]
        for vcpu in self.vm.vcpus:
            assert vcpu.set_sregs(cr0, L1_ROOT, cr4, efer | Efer.SVME)
        self._write_vmcb()

    @staticmethod
    def _audit(vm: Any) -> None:
        assert audit(vm) == []
        assert vm.bugs() == []

    # --- memory

    def load(self, gpa: int, size: int = 8) -> int:
        return int.from_bytes(self.vm.read_guest(gpa, size), "little")

    def store(self, gpa: int, value: int, size: int = 8) -> None:
        """As L1 would: its stores to shadowed tables are seen."""
        assert self.vcpu.write_emulated(gpa, value.to_bytes(size, "little"))

    def put(self, gpa: int, code: str) -> None:
        self.vm.write_guest(gpa, bytes.fromhex(code))
        self.machine.host_memory_changed()

    def field(self, at: int, size: int = 8) -> int:
        return self.load(VMCB + at, size)

    def set(self, at: int, value: int, size: int = 8) -> None:
        self.vm.write_guest(VMCB + at, value.to_bytes(size, "little"))

    def set_segment(self, at: int, segment: Segment) -> None:
        self.vm.write_guest(VMCB + at, struct.pack("<HHIQ", *segment))

    # --- L1's VMCB

    def _write_vmcb(self) -> None:
        self.set(Vmcb.INTERCEPTS_1, Intercept1.HLT | Intercept1.SHUTDOWN, 4)
        self.set(Vmcb.INTERCEPTS_2, Intercept2.VMRUN | Intercept2.VMMCALL, 4)
        self.set(Vmcb.IOPM_BASE, IOPM)
        self.set(Vmcb.MSRPM_BASE, MSRPM)
        self.set(Vmcb.GUEST_ASID, 1, 4)
        if self.npt:
            self.set(Vmcb.NESTED_PAGING, 1)
            self.set(Vmcb.N_CR3, NESTED_ROOT)
        self.set(Vmcb.DR6, 0xFFFF0FF0)
        self.set(Vmcb.DR7, 0x400)
        self.set(Vmcb.G_PAT, 0x0007040600070406)
        self.set_mode(self.form if self.form in ("4-level", "5-level") else "unpaged")

    def set_mode(self, mode: str, *, cpl: int = 0) -> None:
        """L2 in this paging mode, its tables mapping everything to itself."""
        cr0, cr4, efer = REGISTERS[mode]
        dpl = cpl << 5
        data = Segment(0x10 | cpl, 0xC93 | dpl, 0xFFFFFFFF, 0)
        for at in (Vmcb.ES, Vmcb.SS, Vmcb.DS):
            self.set_segment(at, data)
        self.set_segment(Vmcb.CS, Segment(8 | cpl, FLAT[mode] | dpl, 0xFFFFFFFF, 0))
        self.set_segment(Vmcb.GDTR, Segment(0, 0, 0x17, L2_DATA + 0xF00))
        self.set_segment(Vmcb.IDTR, Segment(0, 0, 0xFFF, L2_TABLES))
        self.set(Vmcb.CPL, cpl, 1)
        for at, value in ((Vmcb.CR0, cr0), (Vmcb.CR4, cr4), (Vmcb.EFER, efer | Efer.SVME), (Vmcb.CR3, L2_ROOT), (Vmcb.RFLAGS, 2)):
            self.set(at, value)
        if mode != "unpaged":
            self.vm.write_guest(L2_ROOT, bytes(0x10000))
            self.l2_tables = Tables(self, L2_ROOT, mode).identity()
        self.set(Vmcb.RSP, L2_STACK)
        self.set(Vmcb.RIP, L2_CODE)
        # flat code and data; 64-bit code has L, not D
        code = 0x00AF9B000000FFFF if efer & Efer.LME else 0x00CF9B000000FFFF
        self.vm.write_guest(L2_DATA + 0xF00, struct.pack("<QQQ", 0, code, 0x00CF93000000FFFF))

    def gate(self, vector: int, target: int) -> None:
        """An interrupt gate of L2."""
        kind = target & 0xFFFF | 8 << 16 | (target & 0xFFFF0000 | 0x8E00) << 32
        if self.field(Vmcb.EFER) & Efer.LME:
            self.vm.write_guest(L2_TABLES + 16 * vector, struct.pack("<QQ", kind, target >> 32))
        else:
            self.vm.write_guest(L2_TABLES + 8 * vector, struct.pack("<Q", kind))

    # --- running

    def l1_state(self) -> State:
        """L1 at its VMRUN."""
        data = Segment(0x10, 0xC93, 0xFFFFFFFF, 0)
        state = self.processor.cpu.state()
        state.gpr = [0x1111 * i for i in range(16)]
        state.gpr[Reg.RAX], state.gpr[Reg.RSP] = VMCB, L1_STACK
        state.rip, state.rflags = L1_CODE, 2
        state.set_segments(dict.fromkeys((Seg.ES, Seg.SS, Seg.DS, Seg.FS, Seg.GS), data))
        state.set_segments({Seg.CS: Segment(8, FLAT[self.form], 0xFFFFFFFF, 0)})
        state.system = state.system._replace(cpl=0, gdtr=Table(0x1000, 0x17), idtr=Table(0x2000, 0xFFF))
        return state

    def run(self, state: State | None = None, *, max_exits: int = 1000) -> GuestResult:
        """L1's VMRUN, to its HLT or another end."""
        self.processor.halted = False
        self.processor.cpu.set_state(state or self.l1_state())
        result = self.machine.run(max_exits=self.machine.exits + max_exits, max_quiet=50_000_000)
        self._audit(self.vm)
        return result

    def l2(self, code: str) -> int:
        """Run L2 on this code, from its start, to the exit that L1 gets: the exit code."""
        self.put(L2_CODE, code)
        self.set(Vmcb.RIP, L2_CODE)
        self.set(Vmcb.EXIT_CODE, 0xDEAD)
        result = self.run()
        assert result.reason == "halted", result
        assert self.processor.nested is None
        return self.field(Vmcb.EXIT_CODE)

    def exit(self) -> tuple[int, int, int]:
        """Exit code, EXITINFO1, EXITINFO2."""
        return self.field(Vmcb.EXIT_CODE), self.field(Vmcb.EXIT_INFO_1), self.field(Vmcb.EXIT_INFO_2)

    def l2_done(self, code: str) -> None:
        """Run L2 on this code to its VMMCALL, which must be all that L1 sees."""
        assert self.l2(code + VMMCALL) == SvmExit.VMMCALL, self.exit()
