# SPDX-License-Identifier: GPL-2.0-only
"""A guest: a programme with its memory, its memslots, its first registers, and what the host does meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from kit.bits import (
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PSE,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    P,
    W,
)
from kit.errors import KitError
from kit.handlers import install
from kit.layout import (
    CODE,
    DATA,
    DATA_MAPPED,
    DATA_MEMORY,
    DATA_PAGES,
    GDT,
    HUGE_MEMORY,
    IDENTITY_END,
    IDT,
    KERNEL_STACK,
    LOGGED_MEMORY,
    LOST_MEMORY,
    PAGE,
    TABLES,
    TSS,
    frame,
)
from kit.memory import Memory
from kit.ports import Port
from kit.programme import Programme
from kit.tables import FIVE_LEVEL, FOUR_LEVEL, PAE, TWO_LEVEL, Format, PageTables

END = 0xFFFF
"""Told on Port.HOST at the end; the script has nothing more for it."""


class Mode(NamedTuple):
    """How a guest pages."""

    tag: str
    bits: int
    form: Format | None
    cr4: int = 0
    efer: int = 0


REAL, FLAT = Mode("real", 16, None), Mode("np32", 32, None)
P32 = Mode("p32", 32, TWO_LEVEL, CR4_PSE)
PAE32 = Mode("pae", 32, PAE, CR4_PAE, EFER_NXE)
P64 = Mode("p64", 64, FOUR_LEVEL, CR4_PAE, EFER_LME | EFER_LMA | EFER_NXE)
P57 = Mode("p57", 64, FIVE_LEVEL, CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA | EFER_NXE)


class Slot(NamedTuple):
    id: int
    gpa: int
    size: int
    backing: str = "anon"
    flags: int = 0


ORDINARY, HUGETLB = Slot(0, 0, 16 << 20), Slot(1, HUGE_MEMORY, 4 << 20, "huge")
LOST_SLOT, LOGGED_SLOT = Slot(2, LOST_MEMORY, 16 * PAGE), Slot(3, LOGGED_MEMORY, 16 * PAGE)


class Guest(Programme):
    """A guest without page tables; `mode` REAL or FLAT."""

    def __init__(self, name: str, mode: Mode, about: str, wp: bool = True) -> None:
        super().__init__(Memory(), mode.bits, CODE)
        self.name = name
        self.mode = mode
        self.about = about
        self.slots = [ORDINARY, HUGETLB, LOST_SLOT] if mode is REAL else [ORDINARY, HUGETLB, LOST_SLOT, LOGGED_SLOT]
        self.script: list[list[str]] = []
        """What the host does at each call, in the runner's words."""
        self.other_vcpus: list[dict[str, int]] = []
        """Registers that more vCPUs begin with, as `entry_state`; `host("on 1")` lets one of them run."""
        self.cpu: list[str] = []
        """What its CPU or its VM has not, in the runner's words: `nofeature`, `physbits`, `vendor`, `noquirks`."""
        self.dump_each_op = True
        self.busy = False
        """Another task wants the CPU all the time."""
        self.stepped = False
        """Its plain stores are found, as there is no list of them."""
        self.first_cr4, self.first_efer = mode.cr4, mode.efer
        self.first_cr0 = CR0_ET | CR0_NE
        self._free = TABLES
        if mode is not REAL:
            self.first_cr0 |= CR0_PE | (CR0_PG if mode.form else 0) | (CR0_WP if wp else 0)
            install(self.memory, mode.bits)
            for number in range(DATA_PAGES):
                self.memory.write_word(frame(number), 0xDA7A_0000 + number, 4)
                self.memory.write_word(frame(number) + 8, 0xC3C3_C3C3, 4)  # RET, for those who execute it

    def make_otherwise(self, cpu: tuple[str, ...], backing: tuple[str, ...]) -> None:
        """Take more from its CPU, and give slots (ID=WORD) another kind of memory."""
        self.cpu += cpu
        for told in backing:
            number, equals, word = told.partition("=")
            if not equals or not number.isdecimal() or int(number) not in [slot.id for slot in self.slots]:
                raise KitError(f"{self.name} has no slot {number!r} to back: give ID=WORD, as 0=thp")
            self.slots = [slot._replace(backing=word) if slot.id == int(number) else slot for slot in self.slots]

    def allocate(self) -> int:
        """A zeroed page of the guest's own."""
        at = self._free
        self._free += PAGE
        self.memory.touch(at)
        return at

    def host(self, *commands: str, note: str = "", by: Programme | None = None) -> None:
        """Call the host: it does these commands (capture/README.md lists them). `by`: the programme of another vCPU calls it."""
        caller = by or self
        caller.begin("host", note, cmds=list(commands))
        caller.code.mov("ax", len(self.script))
        caller.code.out(Port.HOST)
        self.script.append(list(commands))

    @property
    def entry_state(self) -> dict[str, int]:
        """The registers that the guest begins with."""
        state = {"mode": self.bits, "cr0": self.first_cr0, "cr3": self.first_cr3, "cr4": self.first_cr4, "efer": self.first_efer}
        state |= {"rip": CODE, "rsp": KERNEL_STACK}
        return state if self.mode is REAL else state | {"gdt": GDT, "idt": IDT, "tss": TSS}

    @property
    def first_cr3(self) -> int:
        return 0

    def description(self) -> dict[str, Any]:
        """What NAME.json says, but for the image's files."""
        return {
            "name": self.name,
            "desc": self.about,
            "bits": self.bits,
            "entry_state": self.entry_state,
            "memslots": [slot._asdict() for slot in self.slots],
            "ops": self.ops,
            "host_script": self.script,
        }

    def end(self) -> None:
        """The last operation; nothing may be added behind it."""
        self.begin("end")
        self.code.mov("ax", END)
        self.code.out(Port.HOST)
        self.code.hlt()

    def save(self, folder: Path) -> None:
        """End the guest, and write NAME.json, NAME.kvs and the image's NAME.GPA.bin."""
        self.end()
        folder.mkdir(parents=True, exist_ok=True)
        image = []
        for gpa, data in self.memory.runs():
            file = f"{self.name}.{gpa:x}.bin"
            (folder / file).write_bytes(data)
            image.append({"gpa": gpa, "file": file, "size": len(data)})
        (folder / f"{self.name}.json").write_text(json.dumps(self.description() | {"image": image}, indent=1) + "\n")
        (folder / f"{self.name}.kvs").write_text("\n".join(self._runner_script(image)) + "\n")

    def _runner_script(self, image: list[dict[str, Any]]) -> list[str]:
        lines = ["busy", "vm"] if self.busy else ["vm"]
        lines += [f"slot {slot.id} {slot.flags:x} {slot.gpa:x} {slot.size:x} {slot.backing}" for slot in self.slots]
        lines += [f"load {part['gpa']:x} {part['file']}" for part in image]
        lines += self.cpu
        for state in (self.entry_state, *self.other_vcpus):
            lines += ["vcpu", "state " + " ".join(f"{key}={value:#x}" for key, value in state.items())]
        lines += ["on 0"] if self.other_vcpus else []
        lines += [f"dumpeach {self.dump_each_op:d}", *(["find"] if self.stepped else []), "stats before"]
        for commands in self.script:
            lines += ["run", *commands]
        return [*lines, "run"]


class Paged(Guest):
    """A guest with page tables of its own: `tables` is the root it begins with."""

    def __init__(self, name: str, mode: Mode, about: str, wp: bool = True) -> None:
        super().__init__(name, mode, about, wp)
        if mode.form is None:
            raise ValueError(f"{name}: mode {mode.tag} has no page tables")
        self.form = mode.form
        self.tables = self.new_root()

    @property
    def first_cr3(self) -> int:
        return self.tables.root

    def new_root(self, low: PageTables | None = None) -> PageTables:
        """Another root: code and tables at their own addresses (by the tables of `low`, if given), and the first data pages."""
        tables = PageTables(self.memory, self.allocate, self.form)
        if low is None:
            tables.map_range(0, 0, TABLES // PAGE)
            tables.map_range(TABLES, TABLES, (IDENTITY_END - TABLES) // PAGE, P | W)
        else:
            tables.set(0, 2, low.get(0, 2))
        tables.map_range(DATA, DATA_MEMORY, DATA_MAPPED)
        return tables
