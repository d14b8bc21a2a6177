# SPDX-License-Identifier: GPL-2.0-only
"""A guest's programme: each operation tells the host its number, then does one thing that the MMU may notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit.assemble import Assembler
from kit.bits import EFER
from kit.handlers import LEAVE_USER, USER_CODE, USER_DATA
from kit.layout import USER_STACK
from kit.memory import Memory
from kit.ports import Port
from kit.tables import PageTables

USER_FLAGS = 0x3002
"""EFLAGS with IOPL 3: the user may use the ports."""


class Programme:
    """Code and the list of what it does, in step: `ops` goes into NAME.json."""

    def __init__(self, memory: Memory, bits: int, start: int, port: Port = Port.OP, prefix: str = "") -> None:
        self.memory = memory
        self.code = Assembler(memory, bits, start)
        self.port = port
        self.prefix = prefix
        self.ops: list[dict[str, Any]] = []
        self.privilege = 0
        self.written: dict[int, int] = {}
        """Entries as the programme has left them so far, by address; the image holds those it begins with."""

    @property
    def bits(self) -> int:
        return self.code.bits

    def begin(self, kind: str, note: str = "", **operands: Any) -> dict[str, Any]:
        """Begin an operation. Its `rip` is the instruction that does it, by default the one that comes next."""
        self.code.mov("ax", len(self.ops))
        self.code.out(self.port)
        op: dict[str, Any] = {"i": len(self.ops), "op": self.prefix + kind, "cpl": self.privilege, "rip": self.code.here, **operands}
        if note:
            op["note"] = note
        self.ops.append(op)
        return op

    @contextmanager
    def resuming(self) -> Iterator[None]:
        """Should the code in the block fault, it goes on behind the block."""
        behind = self.code.mov_address("si")
        yield
        self.code.land(behind)

    # --- memory

    def read(self, va: int, note: str = "") -> None:
        """Read 32 bits, and tell the host."""
        op = self.begin("rd", note, va=va)
        with self.resuming():
            op["rip"] = self.code.load(va)
            self.code.out(Port.VALUE)

    def write(self, va: int, value: int, note: str = "", size: int = 4) -> None:
        op = self.begin("wr", note, va=va, val=value, size=size)
        with self.resuming():
            op["rip"] = self.code.store(va, value, size)

    def add(self, va: int, value: int, note: str = "") -> None:
        """Add to a word that holds 0, by an instruction of which KVM thinks that it seldom writes tables."""
        op = self.begin("wr", note, va=va, val=value, size=4)
        with self.resuming():
            op["rip"] = self.code.add_fixed(va, value)

    def call(self, va: int, note: str = "") -> None:
        """Execute what is at `va`: a RET, or a fault; the stack is as before in both cases."""
        op = self.begin("call", note, va=va)
        self.code.mov_register("di", "sp")
        with self.resuming():
            self.code.mov_word("bx", va)
            op["rip"] = self.code.call("bx")
        self.code.mov_register("sp", "di")

    def edit(self, tables: PageTables, va: int, level: int, value: int, note: str = "") -> None:
        """Write the entry of `va` as code does.

        32-bit code writes an 8-byte entry in two stores: the upper half first, and only if it changes.
        """
        at = tables.entry(va, level)
        old = self.written.get(at, tables.get(va, level))
        self.written[at] = value
        note = note or f"entry of {va:x} at level {level}"
        if tables.form.entry_size == 4:
            self.write(at, value, note)
        elif self.bits == 64:
            self.write(at, value, note, 8)
        else:
            if old >> 32 != value >> 32:
                self.write(at + 4, value >> 32, f"{note} (upper half)")
            self.write(at, value & 0xFFFF_FFFF, note)

    # --- the MMU's registers

    def invlpg(self, va: int, note: str = "") -> None:
        op = self.begin("invlpg", note, va=va)
        op["rip"] = self.code.invlpg(va)

    def edit_flush(self, tables: PageTables, va: int, level: int, value: int, note: str = "") -> None:
        """Write an entry and flush it from the TLB."""
        self.edit(tables, va, level, value, note)
        self.invlpg(va)

    def control(self, number: int, value: int, note: str = "") -> None:
        """MOV to CRn."""
        op = self.begin(f"cr{number}", note, val=value)
        with self.resuming():
            self.code.mov_word("ax", value)
            op["rip"] = self.code.write_control(number)

    def cr0(self, value: int, note: str = "") -> None:
        self.control(0, value, note)

    def cr3(self, value: int, note: str = "") -> None:
        self.control(3, value, note)

    def cr4(self, value: int, note: str = "") -> None:
        self.control(4, value, note)

    def wrmsr(self, register: int, value: int, note: str = "") -> None:
        op = self.begin("wrmsr", note, msr=register, val=value)
        with self.resuming():
            self.code.mov("cx", register)
            self.code.mov("ax", value)
            self.code.mov("dx", value >> 32)
            op["rip"] = self.code.wrmsr()

    def efer(self, value: int, note: str = "") -> None:
        self.wrmsr(EFER, value, note)

    # --- privilege levels

    @contextmanager
    def user(self) -> Iterator[None]:
        """The operations of the block are done at privilege level 3."""
        self.begin("enter_user")
        self.code.push_byte(USER_DATA)
        self.code.push_value(USER_STACK)
        self.code.push_value(USER_FLAGS)
        self.code.push_byte(USER_CODE)
        behind = self.code.push_address()
        self.code.interrupt_return()
        self.code.land(behind)
        self.privilege = 3
        yield
        self.begin("leave_user")
        self.code.interrupt(LEAVE_USER)
        self.privilege = 0

    def vmmcall(self) -> None:
        """An L2 gives itself back to its L1."""
        self.begin("vmmcall")
        self.code.vmmcall()
