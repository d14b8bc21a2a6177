# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, u64

cdef class Vcpu:
    cdef KvmVcpu *vcpu
    cdef readonly object vm
    cdef readonly int id
    cdef object must_run(self, int level)
    cdef object must_have_vmrun(self, object ncr3)
    cdef object outcome(self, u64 address, int result)


cdef object _MADE_BY_VM                    # in C only: nobody else has it


cdef Vcpu make_vcpu(object vm, Kvm *kvm, int id)
