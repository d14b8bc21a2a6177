# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.face.vcpu cimport Vcpu

cpdef object read_physical(Vcpu vcpu, uint64_t gpa, uint64_t size)
