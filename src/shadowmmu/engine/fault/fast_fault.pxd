# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.entries.leaf cimport PageFault
from shadowmmu.engine.arena.state cimport KvmVcpu

cdef int fast_page_fault(KvmVcpu *vcpu, PageFault *fault) noexcept nogil
