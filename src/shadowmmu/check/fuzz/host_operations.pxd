# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.fuzz.guest_operations cimport GuestOperations

cdef class HostOperations(GuestOperations):
    pass
