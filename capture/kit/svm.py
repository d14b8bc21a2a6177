# SPDX-License-Identifier: GPL-2.0-only
"""A guest that is itself a hypervisor: an L1 that runs an L2 by AMD's SVM, on nested page tables or without.

The L2 is flat or paged 32-bit code; what it does between two VMRUNs is written as `guest.l2.read(..)` and so on, and
`guest.vmrun()` runs it up to the next thing that L1 intercepts.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Any

from kit.bits import CR0_ET, CR0_NE, CR0_PE, CR0_PG, CR0_WP, EFER_SVME, VM_HSAVE_PA, P, W
from kit.guest import PAE32, Mode, Paged
from kit.handlers import TASK, TSS_LIMIT
from kit.layout import DATA, DATA_MAPPED, DATA_MEMORY, L2_CODE, L2_DATA, L2_TABLES, PAGE, TSS
from kit.ports import Port
from kit.programme import Programme
from kit.tables import TWO_LEVEL, Format, PageTables

L2_CODE_PAGES, L2_TABLE_PAGES = 4, 8
DR6, DR7 = 0xFFFF_0FF0, 0x400
"""As after reset."""
IOPM, MSRPM = 0x30_0000, 0x30_4000
"""The permission maps: zero pages, nothing is intercepted by them."""
INTERCEPTS_1, INTERCEPTS_2 = 1 << 24 | 1 << 31, 1 << 0 | 1 << 1
"""HLT and SHUTDOWN; VMRUN and VMMCALL."""
ASID = 1
FLUSH_ALL = 1
FLAT_CODE, FLAT_DATA, BUSY_TSS, LDT = 0xC9B, 0xC93, 0x8B, 0x82
"""Segment attributes of a control block: bits 55:52 and 47:40 of a descriptor."""
PAT = 0x0007_0406_0007_0406


class Vmcb:
    """Byte offsets in a virtual machine control block (APM vol. 2, appendix B)."""

    INTERCEPTS_1, INTERCEPTS_2, IOPM, MSRPM, ASID, TLB_CONTROL = 0x0C, 0x10, 0x40, 0x48, 0x58, 0x5C
    EXIT_CODE, EXIT_INFO1, EXIT_INFO2, NP_ENABLE, NCR3 = 0x70, 0x78, 0x80, 0x90, 0xB0
    SEGMENTS, GDTR, LDTR, IDTR, TR = 0x400, 0x460, 0x470, 0x480, 0x490
    EFER, CR4, CR3, CR0, DR7, DR6, RFLAGS, RIP, RSP, PAT = 0x4D0, 0x548, 0x550, 0x558, 0x560, 0x568, 0x570, 0x578, 0x5D8, 0x668


class After(Enum):
    """What L1 does about the exit of its L2."""

    VMMCALL = "vmmcall"
    """Steps over the three bytes of the instruction."""
    NPF = "npf"
    """The access is not allowed: L2 goes on behind it (its esi)."""


class L2(Programme):
    """The L2's programme. It lies in the image of its L1, at the same address for both."""

    def __init__(self, l1: Paged) -> None:
        super().__init__(l1.memory, 32, L2_CODE, Port.L2_OP, prefix="l2_")


class Hypervisor(Paged):
    """An L1 with a control block. `nested` is the nested root that it begins with, if it uses nested paging."""

    def __init__(self, name: str, mode: Mode, about: str, nested_paging: bool = True, l2_paging: bool = False) -> None:
        super().__init__(name, mode, about)
        self.first_efer |= EFER_SVME
        self.save_area, self.vmcb = self.allocate(), self.allocate()
        self.l2 = L2(self)
        self.nested_roots: list[PageTables] = []
        if nested_paging:
            self.nested = self.new_nested_root()
        self._fill_vmcb(nested_paging, l2_paging)
        self.wrmsr(VM_HSAVE_PA, self.save_area, "where VMRUN keeps the L1's state")

    def new_nested_root(self) -> PageTables:
        """Nested tables in L1's own format: L2's code at its address, and the first data pages."""
        tables = PageTables(self.memory, self.allocate, self.form)
        tables.map_range(L2_CODE, L2_CODE, L2_CODE_PAGES)
        tables.map_range(DATA, DATA_MEMORY, DATA_MAPPED)
        self.nested_roots.append(tables)
        return tables

    def l2_tables(self, form: Format = TWO_LEVEL) -> PageTables:
        """L2's own tables: code and tables at their addresses, and the data pages at L2_DATA."""
        free = iter(range(L2_TABLES, L2_TABLES + L2_TABLE_PAGES * PAGE, PAGE))

        def allocate() -> int:
            at = next(free)
            self.memory.touch(at)
            return at

        tables = PageTables(self.memory, allocate, form)
        tables.map_range(L2_CODE, L2_CODE, L2_CODE_PAGES)
        tables.map_range(L2_DATA, DATA if self.nested_roots else DATA_MEMORY, DATA_MAPPED)
        tables.map_range(L2_TABLES, L2_TABLES, L2_TABLE_PAGES, P | W)
        return tables

    def _fill_vmcb(self, nested_paging: bool, l2_paging: bool) -> None:
        cr0 = CR0_PE | CR0_ET | CR0_NE | (CR0_PG | CR0_WP if l2_paging else 0)
        words = {
            Vmcb.INTERCEPTS_1: INTERCEPTS_1, Vmcb.INTERCEPTS_2: INTERCEPTS_2, Vmcb.IOPM: IOPM, Vmcb.MSRPM: MSRPM, Vmcb.ASID: ASID,
            Vmcb.NP_ENABLE: int(nested_paging), Vmcb.NCR3: self.nested.root if nested_paging else 0,
            Vmcb.EFER: EFER_SVME, Vmcb.CR3: L2_TABLES if l2_paging else 0, Vmcb.CR0: cr0, Vmcb.DR7: DR7, Vmcb.DR6: DR6,
            Vmcb.RFLAGS: 2, Vmcb.RIP: L2_CODE, Vmcb.PAT: PAT,
        }  # fmt: skip
        for offset, value in words.items():
            self.memory.write_word(self.vmcb + offset, value, 4 if offset < Vmcb.IOPM or offset == Vmcb.ASID else 8)
        for number, code in enumerate((False, True, False, False, False, False)):  # ES CS SS DS FS GS
            self._segment(Vmcb.SEGMENTS + 16 * number, 0x08 if code else 0x10, FLAT_CODE if code else FLAT_DATA, 0xFFFF_FFFF, 0)
        self._segment(Vmcb.GDTR, 0, 0, 0xFFFF, 0)
        self._segment(Vmcb.IDTR, 0, 0, 0xFFFF, 0)
        self._segment(Vmcb.TR, TASK, BUSY_TSS, TSS_LIMIT, TSS)
        self._segment(Vmcb.LDTR, 0, LDT, 0, 0)

    def _segment(self, offset: int, selector: int, attributes: int, limit: int, base: int) -> None:
        self.memory.write(self.vmcb + offset, struct.pack("<HHIQ", selector, attributes, limit, base))

    # --- operations of L1

    def set_vmcb(self, offset: int, value: int, note: str = "") -> None:
        self.write(self.vmcb + offset, value, note or f"control block, offset {offset:x}")

    def flush(self, on: bool = True) -> None:
        """The next VMRUNs flush the whole TLB, or nothing."""
        self.set_vmcb(Vmcb.TLB_CONTROL, FLUSH_ALL if on else 0, "TLB_CONTROL")

    def set_nested_root(self, tables: PageTables) -> None:
        self.set_vmcb(Vmcb.NCR3, tables.root, "N_CR3")

    def vmrun(self, after: After = After.VMMCALL, note: str = "") -> None:
        """Run L2 to its next exit, tell the host why it ended, and set its rip for the next time."""
        op = self.begin("vmrun", note, vmcb=self.vmcb, expect=after.value)
        if self.mode is PAE32:
            self._clean_pdpte()
        self.code.mov_word("ax", self.vmcb)
        op["rip"] = self.code.vmrun()
        for offset, port in (
            (Vmcb.EXIT_CODE, Port.EXIT_CODE),
            (Vmcb.EXIT_INFO1, Port.EXIT_INFO1),
            (Vmcb.EXIT_INFO2, Port.EXIT_INFO2),
        ):
            self.code.load_fixed(self.vmcb + offset)
            self.code.out(port)
        if after is After.VMMCALL:
            self.code.add_fixed(self.vmcb + Vmcb.RIP, 3)
        else:
            self.code.store_register(self.vmcb + Vmcb.RIP, "si")

    def _clean_pdpte(self) -> None:
        """QEMU's CPU sets the A bit in PDPTEs, where it is reserved: KVM would refuse them at the next #VMEXIT."""
        self.code.load_fixed(self.tables.root)
        self.code.out(Port.PDPTE)
        self.code.store_fixed(self.tables.root, self.tables.get(0, 3))

    def run_l2(self, after: After = After.VMMCALL, note: str = "") -> None:
        """The operations given to L2 so far end here: run them. A vmmcall is added if L2 has to give itself back."""
        if after is After.VMMCALL:
            self.l2.vmmcall()
        self.vmrun(after, note)

    def stop_in_l2(self, *commands: str, note: str = "") -> None:
        """VMRUN, behind which the host does these commands before L2 takes its first step. L2 then runs up to its vmmcall."""
        self.host("window", note=note)
        self.run_l2()
        self.script.append(list(commands))

    def invlpga(self, va: int, note: str = "") -> None:
        op = self.begin("invlpga", note, va=va, asid=ASID)
        self.code.mov_word("ax", va)
        self.code.mov("cx", ASID)
        op["rip"] = self.code.invlpga()

    def end(self) -> None:
        self.l2.begin("end")
        self.l2.code.vmmcall()
        self.l2.code.hlt()
        super().end()

    def description(self) -> dict[str, Any]:
        return super().description() | {
            "l2_ops": self.l2.ops,
            "l2_entry": {"rip": L2_CODE},
            "vmcb": self.vmcb,
            "hsave": self.save_area,
            "ncr3": [root.root for root in self.nested_roots],
        }
