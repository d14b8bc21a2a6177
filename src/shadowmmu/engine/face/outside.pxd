# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, u64

cdef object raise_no_root(KvmVcpu *vcpu, int result)
cdef object raise_fault(KvmVcpu *vcpu, u64 address, int result)
