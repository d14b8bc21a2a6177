# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.fuzz.host_author cimport HostAuthor

cdef class HostSituations(HostAuthor):
    pass
