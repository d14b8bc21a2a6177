# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t

from shadowmmu.engine.face.vcpu cimport Vcpu
from shadowmmu.machine.emulator.code_places cimport CodePlaces
from shadowmmu.machine.memory.shadow_tables cimport ShadowTables
from shadowmmu.machine.memory.translations cimport Translations
from shadowmmu.machine.vcpu.code_pages cimport CodePages
from shadowmmu.machine.vcpu.quick_state cimport OUTCOMES, REFLECTED, Quick, QuickPtr
from shadowmmu.machine.vcpu.svm_state cimport SvmState

cdef enum:
    HOOKED = 0x100             # what the CPU calls its hook with is this and the code of the exit
    PAGE_FAULT_EXIT = 0x4E
    NOT_SERVED = 0x7FFFFFFF    # no result of the MMU's

cdef void on_exit(void *engine, uint32_t number, void *data) noexcept nogil
cdef bint serve(void *engine, QuickPtr quick, uint32_t code) noexcept nogil
cdef bint serve_fault(void *engine, QuickPtr quick) noexcept nogil
cdef bint inject(void *engine, QuickPtr quick) noexcept nogil
cdef void look_from(void *engine, QuickPtr quick) noexcept nogil
cdef bint takes_from_user(QuickPtr quick, uint32_t code) noexcept nogil
cdef bint may_be_served(QuickPtr quick, uint32_t code) noexcept nogil
cdef void count_exit(void *engine, QuickPtr quick) noexcept nogil
cdef void come_nearer(QuickPtr quick, uint64_t ticks) noexcept nogil

cdef class QuickExits:
    cdef Quick quick
    cdef Vcpu vcpu
    cdef readonly CodePlaces places
    cdef readonly Translations translations
    cdef CodePages code
    cdef ShadowTables tables
    cdef uint64_t told[OUTCOMES]
    cdef uint64_t told_interrupts[256]
    cdef uint64_t told_reflected[REFLECTED]
    cdef SvmState svm
    cdef object noted(self, int number)
