# SPDX-License-Identifier: GPL-2.0-only
"""Host pages that a CPU may have translated code from. A store to any other need not be told to it.

A mark is for all pages with the same low bits of the frame number, and stays.
"""

import cython
from cython.cimports.libc.stdint import uint64_t


def mark(marks: MarksPtr, hpa: uint64_t) -> cython.void:
    marks.page[(hpa >> 12) & (PAGES - 1)] = 1


def is_marked(marks: MarksPtr, hpa: uint64_t) -> cython.bint:
    return marks.all or marks.page[(hpa >> 12) & (PAGES - 1)]


@cython.final
@cython.cclass
class CodePages:
    """Of all CPUs of a machine."""

    def may_hold(self, hpa: uint64_t, size: uint64_t):
        """Code may have been translated from this memory, at most a page of it."""
        return bool(is_marked(cython.address(self.marks), hpa) or is_marked(cython.address(self.marks), hpa + size - 1))
