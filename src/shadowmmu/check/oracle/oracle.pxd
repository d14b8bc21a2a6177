# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.oracle.watched_guest cimport WatchedGuest

cdef class Oracle(WatchedGuest):
    cdef readonly tuple vcpus
