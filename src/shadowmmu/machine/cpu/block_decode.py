# SPDX-License-Identifier: GPL-2.0-only
"""Code of translated blocks, decoded by iced-x86."""

from collections.abc import Iterator

from iced_x86 import Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic

_PORTS = frozenset((Mnemonic.IN, Mnemonic.OUT, Mnemonic.INSB, Mnemonic.INSW, Mnemonic.INSD, Mnemonic.OUTSB, Mnemonic.OUTSW, Mnemonic.OUTSD))


def _decoded(code: bytes, bits: int, at: int = 0) -> Iterator[Instruction]:
    """By their lengths: whether one is legal the CPU has seen."""
    return iter(Decoder(bits, code, DecoderOptions.NO_INVALID_CHECK, at))


def instructions_in(code: bytes, bits: int) -> int:
    """How many."""
    return sum(1 for _ in _decoded(code, bits))


def ports_in(code: bytes, bits: int, at: int) -> list[tuple[int, int]]:
    """Where instructions stand that reach ports, and what is behind each; `at`: where the code lies."""
    return [(one.ip, one.next_ip) for one in _decoded(code, bits, at) if one.mnemonic in _PORTS]


def goes_on(code: bytes, bits: int) -> bool:
    """This instruction neither jumps nor is repeated: a block that ends with it has been cut off."""
    one = next(_decoded(code, bits))
    repeats = one.has_rep_prefix or one.has_repne_prefix
    return one.flow_control == FlowControl.NEXT and not repeats
