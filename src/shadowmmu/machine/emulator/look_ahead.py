# SPDX-License-Identifier: GPL-2.0-only
"""Straight-line code up to the end of its page: what a CPU that translates ahead of itself has been through before it does any of it."""

from functools import lru_cache
from typing import TYPE_CHECKING

from iced_x86 import Code, Decoder, FlowControl, Mnemonic

from shadowmmu.machine.memory.guest_tables import path_of, read_physical

if TYPE_CHECKING:
    from shadowmmu import Vcpu

_JUMPS = frozenset((FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH, FlowControl.CONDITIONAL_BRANCH, FlowControl.RETURN))


def behind_straight_code(code: bytes, bits: int, at: int) -> int | None:
    """Where the code at the linear address `at` ends, but for an instruction that is not whole; None: a jump ends it, or it is none."""
    behind = at
    for instruction in Decoder(bits, code, ip=at):
        if instruction.code == Code.INVALID:
            break
        if instruction.flow_control in _JUMPS or instruction.mnemonic == Mnemonic.CALL:
            return None
        behind = instruction.next_ip
    return None if behind == at else behind


def code_with_nested_paging(vcpu: "Vcpu", at: int, size: int) -> bytes | None:
    """Code bytes within a page, only looked at: the CPU has walked the guest's tables itself. None: there are none."""
    gpa = path_of(vcpu, at).gpa
    return None if gpa is None else read_physical(vcpu, gpa, size)


def goes_on_behind(vcpu: "Vcpu", at: int, size: int, bits: int) -> bool:
    """With nested paging: the code of so many bytes at `at`, up to the end of its page, goes on in the next one."""
    code = code_with_nested_paging(vcpu, at, size)
    return code is not None and _goes_on(code, bits)


@lru_cache(maxsize=256)
def _goes_on(code: bytes, bits: int) -> bool:
    """Wherever it lies. An L2 that runs there comes to it again and again."""
    return behind_straight_code(code, bits, 0) is not None
