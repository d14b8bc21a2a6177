# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64
from libc.stdlib cimport free, realloc

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.hardware.walk cimport Paging, Step, use_entry

ctypedef int *p_int

cdef enum:
    WRITE = 2
    ACCESSED = 0x20
    DIRTY = 0x40
    ALL = 0xE
    GLOBAL = 0x100
    ADDRESS = 0x000FFFFFFFFFF000
    END = -1                                # of a chain of rows

cdef class Node:
    cdef readonly int number
    cdef readonly u64 above
    cdef public tuple children

cdef class Child:
    cdef readonly int number, step
    cdef readonly u64 at
    cdef readonly Node below
    cdef readonly tuple pages

cdef class Shape:
    cdef readonly tuple tops, nodes, children

cdef struct Leaf:                           # a translation of a watched page
    u64 page, rights
    int shift, watched
    int next                                # of the same watched page
ctypedef Leaf *LeafPtr

cdef struct Reached:                        # a table that the tables of a node have led to
    u64 table, rights
    int next                                # of the same node
ctypedef Reached *ReachedPtr

cdef struct Use:                            # an entry that counts
    u64 hpa, rights
    int child
ctypedef Use *UsePtr

cdef class AddressSpace:
    cdef readonly object tlb
    cdef public u64 cr3
    cdef public bint mixed
    cdef bint strict
    cdef GuestMemory memory
    cdef Unguarded unguarded
    cdef Paging mode
    cdef Shape shape
    cdef list views
    cdef tuple watched
    cdef Leaf *leaves
    cdef int nleaves, leaf_room
    cdef int *first_leaf                    # of each watched page
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
    cdef object add(self, int watched, u64 page, int shift, u64 rights)
    cdef bint reach(self, Node node, u64 table, u64 rights) except -1
    cpdef int entries_changed(self, u64 hpa, int size) except -1
    cdef object chain_anew(self)
    cpdef bint leads(self, int watched, u64 gva, u64 first, u64 pages, bint only_global) except -1
    cpdef bint lets(self, int watched, u64 gva, u64 access, bint ac, u64 hpa, bint only_global) except -1


cdef inline void *with_room(void *rows, int count, int *room, size_t size) except NULL:
    """The rows, with room for one more."""
    if count < room[0]:
        return rows
    cdef void *more = realloc(rows, (2 * room[0] + 64) * size)
    if more == NULL:
        raise MemoryError("no memory for what the guest's tables allow")
    room[0] = 2 * room[0] + 64
    return more
