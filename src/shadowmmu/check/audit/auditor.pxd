# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport ENTRIES, Kvm, PteListDesc, ShadowPage, spte_t, u64
from shadowmmu.engine.face.vm cimport Vm

cdef extern from *:
    int lowest_bit "__builtin_ctzll"(u64 word) nogil

cdef enum:
    WORDS = ENTRIES // 64                   # of one bit an entry of a table

cdef class Auditor:
    cdef Vm vm
    cdef Kvm *kvm
    cdef readonly list found
    cdef bint strict                        # report what Linux itself lets happen too
    cdef object untold                      # addresses of entries of guest tables that were stored to from outside the VM
    cdef readonly u64 excused               # violations that only such a store explains
    cdef ShadowPage **live                  # the pages in existence, by the order of their headers
    cdef u64 nlive
    cdef bint thorough                      # look at every entry, not only at those that one knows of
    cdef u64 *listed                        # WORDS for each header: a bit for each entry that a reverse list names
    cdef u64 *seen                          # likewise: in which there was something when all were looked at last
    cdef int *held                          # for each header: how many root slots hold the page
    cdef u64 *descs                         # a bit for each rmap descriptor: a reverse list has it
    cdef u64 ndescs                         # and how many they are
    cdef u64 leaves[4]                      # present leaves, by level
    cdef object find_live(self)
    cdef void say(self, object id, object text)
    cdef object page_name(self, ShadowPage *sp)
    cdef object entry_name(self, ShadowPage *sp, int index)
    cdef ShadowPage *owner(self, spte_t *sptep) noexcept
    cdef bint mark(self, ShadowPage *sp, int index) noexcept
    cdef bint claim(self, PteListDesc *desc) noexcept


cdef inline bint is_listed(Auditor auditor, ShadowPage *sp, int index) noexcept:
    """A reverse list names entry `index` of `sp`."""
    return (auditor.listed[(sp - auditor.kvm.pages) * WORDS + (index >> 6)] >> (index & 63)) & 1


cdef inline u64 next_used(u64 *words, u64 at, u64 end, u64 unused) noexcept nogil:
    """Index of the first word that is not `unused` in words[at:end], or `end`. Most of a table, and of an rmap, is that."""
    while at < end:
        if at + 8 <= end and not (
            (words[at] ^ unused) | (words[at + 1] ^ unused) | (words[at + 2] ^ unused) | (words[at + 3] ^ unused)
            | (words[at + 4] ^ unused) | (words[at + 5] ^ unused) | (words[at + 6] ^ unused) | (words[at + 7] ^ unused)
        ):
            at += 8
        elif words[at] != unused:
            return at
        else:
            at += 1
    return end


cdef inline u64 next_entry(Auditor auditor, ShadowPage *sp, u64 at) noexcept:
    """Index of the first entry from `at` on to look at, or ENTRIES."""
    if auditor.thorough:
        return next_used(sp.spt, at, ENTRIES, sp.nothing)
    cdef u64 *listed = &auditor.listed[(sp - auditor.kvm.pages) * WORDS]
    cdef u64 *seen = &auditor.seen[(sp - auditor.kvm.pages) * WORDS]
    cdef u64 word
    while at < ENTRIES:
        word = (listed[at >> 6] | seen[at >> 6]) >> (at & 63)
        if word:
            return at + lowest_bit(word)
        at = (at | 63) + 1
    return ENTRIES
