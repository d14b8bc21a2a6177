# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64
from libc.stdlib cimport free, realloc

from shadowmmu.check.oracle.guest_memory cimport NOWHERE
from shadowmmu.check.oracle.leaves cimport DIRTY, END, Leaves, p_int, with_room
from shadowmmu.check.oracle.shape cimport Child, Node, Shape
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.hardware.walk cimport Paging, Step, use_entry

cdef enum:
    ACCESSED = 0x20
    ALL = 0xE
    ADDRESS = 0x000FFFFFFFFFF000

cdef struct Reached:                        # a table that the tables of a node have led to
    u64 table, rights
    int next                                # of the same node
ctypedef Reached *ReachedPtr

cdef struct Use:                            # an entry that counts
    u64 hpa, rights
    int child
ctypedef Use *UsePtr

cdef class AddressSpace(Leaves):
    cdef readonly object tlb
    cdef public u64 cr3
    cdef public bint mixed
    cdef Unguarded unguarded
    cdef Shape shape
    cdef list views
    cdef Reached *reached
    cdef int nreached, reached_room
    cdef int *first_reached                 # of each node
    cdef int node_room
    cdef Use *uses
    cdef int nuses, use_room
    cpdef object rebuild(self)
    cpdef object look_again(self)
    cdef list reached_tables(self)
    cdef object start(self)
    cdef object visit_pdptes(self)
    cdef object visit(self, Node node, u64 table, u64 rights)
    cdef object use(self, Child child, u64 hpa, u64 rights, int width)
    cdef object follow(self, Child child, u64 entry, u64 rights)
    cdef bint reach(self, Node node, u64 table, u64 rights) except -1
    cpdef int entries_changed(self, u64 hpa, int size) except -1
