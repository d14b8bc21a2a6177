# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.fuzz.table_writer cimport TableWriter

cdef class HostAuthor(TableWriter):
    pass
