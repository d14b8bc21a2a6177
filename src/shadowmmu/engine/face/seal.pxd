# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm

cdef bytes save_state(Kvm *kvm, bytes key)
cdef object restore_state(Kvm *kvm, bytes key, bytes state)
