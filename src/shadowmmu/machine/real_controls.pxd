# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.machine.cpu.svm_entry cimport ControlRegisters, ControlsPtr

cdef void find_controls(KvmVcpu *vcpu, ControlsPtr into) noexcept nogil
