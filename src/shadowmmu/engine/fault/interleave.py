# SPDX-License-Identifier: GPL-2.0-only
"""What others do while a fault is served: at the points where the kernel has not taken its lock, or another CPU needs none.

Inline in the .pxd, since it runs in every fault: `interleave`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, KvmPtr, MemSlotPtr, gfn_t
from cython.cimports.shadowmmu.engine.memory.guest_memory import InterleaveEvent, write_guest
from cython.cimports.shadowmmu.engine.memory.host_memory import move_host_page
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot
from cython.cimports.shadowmmu.engine.pages.zap import zap_all_fast


def let_in(kvm: KvmPtr) -> cython.void:
    """What was armed."""
    kvm.interleave.point = 0
    gfn: gfn_t = kvm.interleave.gpa >> PAGE_SHIFT
    slot: MemSlotPtr = gfn_to_memslot(kvm, 0, gfn)
    if kvm.interleave.event == InterleaveEvent.STORE:
        write_guest(kvm, 0, kvm.interleave.gpa, cython.address(kvm.interleave.value), kvm.interleave.size)
    elif kvm.interleave.event == InterleaveEvent.ZAP_ALL:
        zap_all_fast(kvm)
    elif slot != cython.NULL:
        move_host_page(kvm, slot.hva + gfn - slot.base_gfn)
