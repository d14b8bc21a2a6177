# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.fuzz.situations cimport Situations

cdef class L2Author(Situations):
    pass
