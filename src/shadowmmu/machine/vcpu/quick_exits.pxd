# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.face.vcpu cimport Vcpu
from shadowmmu.machine.devices.console cimport Console
from shadowmmu.machine.devices.uart cimport SerialPort
from shadowmmu.machine.emulator.code_places cimport CodePlaces
from shadowmmu.machine.memory.guest_tables cimport GuestTables
from shadowmmu.machine.memory.nested_tables cimport NestedTables
from shadowmmu.machine.memory.shadow_tables cimport ShadowTables
from shadowmmu.machine.memory.translations cimport Translations
from shadowmmu.machine.vcpu.code_pages cimport CodePages
from shadowmmu.machine.vcpu.cpuid_leaves cimport CpuidLeaves
from shadowmmu.machine.vcpu.quick_audit cimport QuickAudit
from shadowmmu.machine.vcpu.quick_devices cimport QuickDevices
from shadowmmu.machine.vcpu.quick_state cimport OUTCOMES, REFLECTED, Quick, QuickPtr
from shadowmmu.machine.vcpu.svm_state cimport SvmState

cdef enum:
    NOT_SERVED = 0x7FFFFFFF    # no result of the MMU's

cdef class QuickExits:
    cdef Quick quick
    cdef Vcpu vcpu
    cdef readonly CodePlaces places
    cdef readonly Translations translations
    cdef CodePages code
    cdef ShadowTables tables
    cdef GuestTables guest_tables
    cdef NestedTables nested_tables
    cdef QuickDevices devices
    cdef SerialPort serial
    cdef Console console
    cdef QuickAudit audit
    cdef uint64_t told[OUTCOMES]
    cdef uint64_t told_interrupts[256]
    cdef uint64_t told_reflected[REFLECTED]
    cdef SvmState svm
    cdef CpuidLeaves leaves
    cdef object noted(self, int number)
