# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm

cdef Kvm *create_vm(object config) except NULL
