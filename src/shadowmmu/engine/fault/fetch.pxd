# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.entries.leaf cimport PageFault
from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.engine.guest.walker cimport GuestWalker

cdef int fetch(KvmVcpu *vcpu, PageFault *fault, GuestWalker *walker) noexcept nogil
cdef int direct_map(KvmVcpu *vcpu, PageFault *fault) noexcept nogil
