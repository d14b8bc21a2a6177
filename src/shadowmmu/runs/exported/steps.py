# SPDX-License-Identifier: GPL-2.0-only
"""A step of the player, as `player.asm` reads it (struc STEP)."""

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from shadowmmu.check.fuzz.operations import AC
from shadowmmu.hardware.walk import USER, WRITE

NONE = (1 << 64) - 1
"""What is wanted of a step without an exception."""
STEP = struct.Struct("<BBBBIQ16sQQQII")


class Do(IntEnum):
    """What a step does."""

    END = 0
    HOST = 1
    ACCESS = 2
    FETCH = 3
    EMULATED = 4
    INVLPG = 5
    CR0 = 6
    CR3 = 7
    CR4 = 8
    EFER = 9
    MODE = 10
    VMRUN = 11
    VMEXIT = 12


class Flag(IntFlag):
    WRITE = 1
    USER = 2
    AC = 4
    VALUE = 8
    """What is read is compared."""
    ANY = 16
    """Whatever comes of it is right."""


def flags_of(access: int) -> Flag:
    """Of an access as the fuzz has it."""
    found = Flag(0)
    for bit, flag in ((WRITE, Flag.WRITE), (USER, Flag.USER), (AC, Flag.AC)):
        found |= flag if access & bit else Flag(0)
    return found


class Step(NamedTuple):
    """`number` is that of the operation, of `HOST` that of the host's step. `device`: where the player fills in the device's memory, and
    where it is read. Of `MODE` and `VMRUN` the registers are in `address` (CR0), `value` (CR3, and CR4 above it) and `device` (EFER)."""

    do: Do
    vcpu: int
    number: int
    text: str = ""
    size: int = 1
    flags: Flag = Flag(0)
    address: int = 0
    value: int = 0
    want: int = NONE
    device: tuple[int, int] = (0, 0)

    def pack(self, text_at: int) -> bytes:
        return STEP.pack(
            self.do, self.vcpu, self.size, self.flags, self.number, self.address, self.value.to_bytes(16, "little"), self.want,
            *self.device, text_at, 0,
        )  # fmt: skip
