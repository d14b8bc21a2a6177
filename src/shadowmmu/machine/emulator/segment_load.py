# SPDX-License-Identifier: GPL-2.0-only
"""A load of a data segment register. Source: SDM vol. 2, MOV; vol. 3 section 5.5 to 5.7."""

from shadowmmu.machine.emulator.emulation import Emulation
from shadowmmu.machine.memory.descriptors import NoDescriptor, mark, read_descriptor
from shadowmmu.machine.memory.linear_memory import GuestFault
from shadowmmu.machine.seam import Seg, Segment
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.vectors import GP, NP, SS, UD
from shadowmmu.x86.vmcb import Attr


def load_segment(e: Emulation, which: Seg, selector: int) -> None:
    """Any but CS; SS casts the shadow that keeps interrupts away from the next instruction."""
    if which is Seg.CS:
        raise GuestFault(UD)
    if not e.memory.vcpu.cr0 & Cr0.PE or e.state.rflags & Rflags.VM:
        e.state.set_segments({which: e.state.system.segments[which]._replace(selector=selector, base=selector << 4)})
    elif not selector & 0xFFFC:
        _load_null(e, which, selector)
    else:
        e.state.set_segments({which: _described(e, which, selector)})


def _load_null(e: Emulation, which: Seg, selector: int) -> None:
    """SS may be null in 64-bit mode, outside ring 3, with the RPL that it is to have."""
    cpl = e.state.cpl
    if which is Seg.SS and (e.mode != 64 or cpl == 3 or selector & 3 != cpl):
        raise GuestFault(GP)
    attr = cpl << 5 if which is Seg.SS else 0
    base = e.state.system.segments[which].base if e.mode == 64 and which in (Seg.FS, Seg.GS) else 0
    e.state.set_segments({which: Segment(selector, attr, 0, base)})


def _described(e: Emulation, which: Seg, selector: int) -> Segment:
    try:
        found, address = read_descriptor(e.memory, e.state, selector)
    except NoDescriptor:
        raise GuestFault(GP, selector & 0xFFFC) from None
    if not _is_loadable(which, found, e.state.cpl):
        raise GuestFault(GP, selector & 0xFFFC)
    if not found.attr & Attr.PRESENT:
        raise GuestFault(SS if which is Seg.SS else NP, selector & 0xFFFC)
    return mark(e.memory, found, address, Attr.ACCESSED)


def _is_loadable(which: Seg, found: Segment, cpl: int) -> bool:
    """A writable stack of this level; or data, or code that can be read, of no more privilege."""
    code, rpl = bool(found.attr & Attr.CODE), found.selector & 3
    if not found.attr & Attr.NON_SYSTEM:
        return False
    if which is Seg.SS:
        return not code and bool(found.attr & Attr.WRITABLE) and found.dpl == rpl == cpl
    if code and not found.attr & Attr.WRITABLE:
        return False
    return bool(code and found.attr & Attr.EXPAND_DOWN) or found.dpl >= max(cpl, rpl)
