# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor, is_listed, next_entry, WORDS
