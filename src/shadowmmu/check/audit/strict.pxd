# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor, next_used
from shadowmmu.check.audit.guest_table cimport GuestTable, find_guest_table, guest_entry, page_named, page_rights
