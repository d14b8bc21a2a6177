# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.hardware.walk cimport Paging, Step, use_entry

cdef u64 _ACCESSED, _DIRTY, _ALL

cdef class Child:
    cdef readonly int step
    cdef readonly u64 at
    cdef readonly tuple key, pages

cdef class AddressSpace:
    cdef readonly object tlb, memory
    cdef public object cr3
    cdef public bint mixed
    cdef readonly dict pages, tables, depends
    @cython.locals(reached=set, at=tuple, first=u64, width=int, below=u64, mmio=bint, child=Child, hpa=u64)
    cdef object _visit(self, tuple key, u64 table, u64 rights)
    @cython.locals(entry=u64, value=u64)
    cdef object _use(self, Child child, u64 hpa, u64 rights, int width)
    @cython.locals(mode=Paging, steps=tuple, step=Step, fault=int, address=u64, below=u64, leaf=bint)
    cdef object _follow(self, Child child, u64 entry, u64 rights)
