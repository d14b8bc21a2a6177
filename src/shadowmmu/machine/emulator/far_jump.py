# SPDX-License-Identifier: GPL-2.0-only
"""A far JMP through memory, to a code segment. Source: SDM vol. 2, JMP; vol. 3 section 5.8.1."""

from shadowmmu.machine.emulator.emulation import Emulation, NotEmulated
from shadowmmu.machine.memory.descriptors import NoDescriptor, mark, read_descriptor
from shadowmmu.machine.memory.linear_memory import READ, GuestFault
from shadowmmu.machine.seam import MASK32, Seg, Segment
from shadowmmu.x86.control import Cr0, Efer, Rflags
from shadowmmu.x86.vectors import GP, NP
from shadowmmu.x86.vmcb import Attr


def far_jump(e: Emulation) -> None:
    """The operand is an offset and, behind it, a selector."""
    size = e.size(0) - 2
    pointer = e.memory.load(e.locate(0, READ))
    offset, selector = pointer & (1 << 8 * size) - 1, pointer >> 8 * size
    real = not e.memory.vcpu.cr0 & Cr0.PE or e.state.rflags & Rflags.VM
    segment = e.state.cs._replace(selector=selector, base=selector << 4) if real else _code_segment(e, selector)
    in_64_bit_code = bool(e.memory.vcpu.efer & Efer.LMA) and segment.long
    if in_64_bit_code and not e.memory.canonical(offset):
        raise GuestFault(GP)
    if not in_64_bit_code and offset & MASK32 > segment.limit:
        raise GuestFault(GP)
    e.state.set_segments({Seg.CS: segment})
    e.state.rip = offset if in_64_bit_code else offset & MASK32


def _code_segment(e: Emulation, selector: int) -> Segment:
    """At the privilege level there is; gates and tasks are left to the CPU."""
    if not selector & 0xFFFC:
        raise GuestFault(GP)
    try:
        found, address = read_descriptor(e.memory, e.state, selector)
    except NoDescriptor:
        raise GuestFault(GP, selector & 0xFFFC) from None
    if not found.attr & Attr.NON_SYSTEM:
        raise NotEmulated
    conforming, cpl = bool(found.attr & Attr.EXPAND_DOWN), e.state.cpl
    allowed = found.dpl <= cpl if conforming else found.dpl == cpl and selector & 3 <= cpl
    both = e.memory.vcpu.efer & Efer.LMA and found.long and found.big
    if not found.attr & Attr.CODE or not allowed or both:
        raise GuestFault(GP, selector & 0xFFFC)
    if not found.attr & Attr.PRESENT:
        raise GuestFault(NP, selector & 0xFFFC)
    return mark(e.memory, found._replace(selector=selector & ~3 | cpl), address, Attr.ACCESSED)
