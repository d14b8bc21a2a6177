# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor, next_used
from shadowmmu.engine.arena.state cimport Kvm, ShadowPage

cdef bint has_unsync(Kvm *kvm, ShadowPage *sp) noexcept
