# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.fuzz.host_situations cimport HostSituations

cdef class Situations(HostSituations):
    pass
