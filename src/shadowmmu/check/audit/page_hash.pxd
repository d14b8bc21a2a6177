# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor, next_used
from shadowmmu.engine.arena.state cimport HashBucket

cdef enum:
    BUCKET_WORDS = sizeof(HashBucket) // 8
