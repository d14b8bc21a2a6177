# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

cdef u64 WORD, STEP, FIRST, SECOND
cdef double UNIT

cdef class Draw:
    cdef u64 state
    @cython.locals(mixed=u64)
    cdef u64 word(self) noexcept
    cpdef u64 getrandbits(self, int bits) noexcept
    cpdef double random(self) noexcept
    cpdef bint chance(self, double often) noexcept
    cpdef long long below(self, long long end) noexcept
    cpdef long long between(self, long long first, long long end) noexcept
    cpdef long long randint(self, long long first, long long last) noexcept
    cpdef object choice(self, object among)
    @cython.locals(wanted=double, number=int)
    cpdef object weighted(self, object among, object upto)
    @cython.locals(rest=list, at=int, other=int)
    cpdef list sample(self, object among, int count)
