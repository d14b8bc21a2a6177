# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

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
