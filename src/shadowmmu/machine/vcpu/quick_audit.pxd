# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.face.vm cimport Vm
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef class QuickAudit:
    cdef object audit, raised
    cdef Vm vm

cdef void audit_exit(QuickPtr quick) noexcept nogil
