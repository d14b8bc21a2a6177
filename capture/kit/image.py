# SPDX-License-Identifier: GPL-2.0-only
"""A guest that is somebody's own image: bytes and registers. What it stores without an exit its author need not tell: it is found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kit.errors import KitError
from kit.guest import FLAT, REAL, Guest, Slot

REGISTERS = ("mode", "cr0", "cr3", "cr4", "efer", "rip", "rsp", "gdt", "idt", "tss")
MODES = (16, 32, 64)


class Image(Guest):
    """`parts` are laid into memory; `state` is what it begins with; it ends with HLT."""

    def __init__(self, name: str, parts: dict[int, bytes], state: dict[str, int], slots: list[Slot]) -> None:
        super().__init__(name, REAL, "an image of one's own")
        self.slots = slots
        self.stepped = True
        self._state = state
        self._bits = state["mode"]
        for gpa, data in parts.items():
            if not any(slot.gpa <= gpa and gpa + len(data) <= slot.gpa + slot.size for slot in slots):
                raise KitError(f"{name}: no slot holds the {len(data)} bytes at {gpa:x}; give --slot ID=GPA+SIZE")
            self.memory.write(gpa, data)

    @property
    def entry_state(self) -> dict[str, int]:
        return self._state

    def description(self) -> dict[str, Any]:
        return super().description() | {"bits": self._bits}

    def end(self) -> None:
        """It has its own."""


def image_of(name: str, loads: tuple[str, ...], states: tuple[str, ...], slots: tuple[str, ...]) -> Image:
    """From the words of the command line."""
    parts = dict(_load(told) for told in loads)
    if not parts:
        raise KitError(f"{name}: nothing to run; give --load GPA=FILE")
    return Image(name, parts, _state(name, states), [_slot(told) for told in slots or ("0=0+200000",)])


def _load(told: str) -> tuple[int, bytes]:
    gpa, equals, path = told.partition("=")
    if not equals or not re.fullmatch("[0-9a-fA-F]+", gpa):
        raise KitError(f"{told!r} loads nothing: give GPA=FILE, as 8000=programme.bin")
    return int(gpa, 16), Path(path).read_bytes()


def _state(name: str, states: tuple[str, ...]) -> dict[str, int]:
    state = dict.fromkeys(REGISTERS, 0) | {"cr0": 0x11, "mode": FLAT.bits}
    for told in states:
        register, _, value = told.partition("=")
        number = re.fullmatch("[0-9a-fA-F]{1,16}", value)
        if register not in REGISTERS or not number:
            raise KitError(f"{told!r} is no register: give one of {', '.join(REGISTERS)}, as cr3=1000")
        state[register] = int(value, 10 if register == "mode" else 16)
    if state["mode"] not in MODES:
        raise KitError(f"{name}: no CPU begins in mode {state['mode']}; give mode=16, 32 or 64")
    return state


def _slot(told: str) -> Slot:
    found = re.fullmatch(r"(\d+)=([0-9a-fA-F]+)\+([0-9a-fA-F]+)(?::(.+))?", told)
    if found is None:
        raise KitError(f"{told!r} is no memslot: give ID=GPA+SIZE, or ID=GPA+SIZE:BACKING, as 0=0+1000000")
    number, gpa, size, backing = found.groups()
    return Slot(int(number), int(gpa, 16), int(size, 16), backing or "anon")
