# SPDX-License-Identifier: GPL-2.0-only
"""Page faults that the MMU mends at once are served within the CPU's hook, without Python, and the guest goes on from there.

What such an exit does is what the loop does with it, in the same order: the MMU's page fault (`handlers._page_fault`),
then the entry (`loop.entry`), of which nothing is left to do if no request, flush or new root is due. Where the MMU wants
more, its result is kept for the handler, which asks `outcome`: no fault is served twice.

A run with quick faults is the same as one without: exits, events, counters and virtual time. So they are off while
somebody is to see each exit, and where the loop would do more between two: an L2 on shadow tables, nested paging, a
message from outside that waits. The last exit before a limit is left to the loop.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t, uintptr_t
from cython.cimports.shadowmmu.engine.arena.state import Hpa, PfRet
from cython.cimports.shadowmmu.engine.cpu.requests import prepare_entry
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.engine.fault.fault import mmu_page_fault
from cython.cimports.shadowmmu.x86.control import Cr4, Rflags
from cython.cimports.shadowmmu.x86.pferr import Pferr

FOREVER = (1 << 64) - 1
"""No number of instructions."""


def on_exit(engine: cython.p_void, number: uint32_t, data: cython.p_void) -> cython.void:
    """The CPU's hook for all exits: if it returns without a stop, the guest goes on."""
    quick: QuickPtr = cython.cast(QuickPtr, data)
    if number == PAGE_FAULT_EXIT and quick.left:
        quick.save(engine, quick.context)
        if may_be_served(quick, quick.error_code[0]) and serve(engine, quick):
            count_exit(quick)
            return
    quick.slow(engine, number, cython.NULL)


def may_be_served(quick: QuickPtr, code: uint32_t) -> cython.bint:
    """Not what the loop looks at twice: a fetch, which may come too early, reserved bits, a descriptor table read with SMAP on."""
    if code & (Pferr.RSVD | Pferr.FETCH):
        return False
    return not (quick.vcpu.cr4 & Cr4.SMAP and quick.mode[0] & 3 == 3 and not code & Pferr.USER)


def serve(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """Have the MMU handle the fault and prepare the entry; False: the loop goes on with what is left to do."""
    if quick.vcpu.cr4 & Cr4.SMAP:
        look_from(engine, quick)
    result: cython.int = mmu_page_fault(quick.vcpu, quick.address[0] & quick.wrap, quick.error_code[0])
    mended: cython.bint = result == PfRet.RET_PF_FIXED or result == PfRet.RET_PF_SPURIOUS
    if not mended or quick.vcpu.requests or quick.vcpu.mmu.root.hpa == Hpa.INVALID_PAGE:
        quick.result = result
        return False
    prepare_entry(quick.vcpu)
    if quick.vcpu.flush_hw_all or quick.vcpu.flush_gva_count:
        quick.result = result
        return False
    if result == PfRet.RET_PF_FIXED:
        quick.fixed += 1
    else:
        quick.spurious += 1
    return True


def look_from(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """Make the MMU's walk that of the guest's registers now: EFLAGS.AC suspends SMAP."""
    flags: uint64_t = 0
    quick.reg_read(engine, quick.flags_register, cython.address(flags))
    quick.vcpu.ac = (flags & Rflags.AC) != 0


def count_exit(quick: QuickPtr) -> cython.void:
    """As between two runs: the timer has come nearer by the exit, the slice begins anew."""
    quick.left -= 1
    quick.last = quick.executed[0]
    come_nearer(quick, quick.ticks)
    quick.limit[0] = min(quick.last + quick.slice, quick.turn_end, quick.deadline)


def come_nearer(quick: QuickPtr, ticks: uint64_t) -> cython.void:
    """Time has passed beside the CPU's own."""
    if quick.deadline != NO_DEADLINE:
        quick.deadline -= min(ticks, quick.deadline)


@cython.final
@cython.cclass
class QuickFaults:
    """Of the CPU that runs the guest of `vcpu`."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.quick.vcpu = vcpu.vcpu
        self.quick.left = 0
        self.quick.result = NOT_SERVED

    def attach(self, places: object):
        """`seam.Places`: what the hook reads and calls."""
        quick: QuickPtr = cython.address(self.quick)
        quick.save = cython.cast(save_t, cython.cast(uintptr_t, places.save))
        quick.context = cython.cast(cython.p_void, cython.cast(uintptr_t, places.context))
        quick.error_code = cython.cast(cython.pointer(uint32_t), cython.cast(uintptr_t, places.error_code))
        quick.mode = cython.cast(cython.pointer(uint8_t), cython.cast(uintptr_t, places.mode))
        quick.address = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.address))
        quick.executed = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.executed))
        quick.limit = cython.cast(cython.pointer(uint64_t), cython.cast(uintptr_t, places.limit))
        quick.reg_read = cython.cast(reg_read_t, cython.cast(uintptr_t, places.reg_read))
        quick.flags_register = places.flags_register
        quick.slow = cython.cast(slow_t, cython.cast(uintptr_t, places.slow))

    def set_wrap(self, wrap: uint64_t):
        """The bits that a linear address has in the mode of the next run."""
        self.quick.wrap = wrap

    def begin(self, left: uint64_t, slice: uint64_t, turn_end: uint64_t, deadline: uint64_t, ticks: uint64_t):
        """Serve up to `left` exits. The CPU stops when it has executed `slice` instructions since the last one, at `turn_end`, and
        at `deadline`, which comes `ticks` nearer with each exit; FOREVER: there is none."""
        quick: QuickPtr = cython.address(self.quick)
        quick.left, quick.slice, quick.turn_end, quick.deadline, quick.ticks = left, slice, turn_end, deadline, ticks
        self.taken_fixed, self.taken_spurious = quick.fixed, quick.spurious

    def spend(self, ticks: uint64_t):
        """So many ticks passed while the CPU runs: from the next exit on the deadline is nearer by them."""
        come_nearer(cython.address(self.quick), ticks)

    def pause(self):
        """Serve no more in this run."""
        self.quick.left = 0

    def end(self):
        """No more. What was served since `begin`: (fixed, spurious)."""
        self.quick.left = 0
        return self.quick.fixed - self.taken_fixed, self.quick.spurious - self.taken_spurious

    @property
    def served(self):
        """Exits so far."""
        return self.quick.fixed + self.quick.spurious

    @property
    def last(self):
        """Instructions that were executed when the last one was served."""
        return self.quick.last

    def outcome(self, gva: uint64_t, code: uint64_t):
        """Of a fault that the hook has not served to its end: what the MMU said there, or says now."""
        result: cython.int = self.quick.result
        self.quick.result = NOT_SERVED
        return self.vcpu.page_fault(gva, code) if result == NOT_SERVED else self.vcpu.outcome(gva, result)

    @property
    def hook(self):
        """Address of the hook, a C function."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_exit))

    @property
    def data(self):
        """Address of what the hook is to be given."""
        return cython.cast(uintptr_t, cython.address(self.quick))
