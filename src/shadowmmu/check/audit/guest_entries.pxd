# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor, next_entry
from shadowmmu.check.audit.guest_table cimport (
    GuestTable, GuestTablePtr, find_guest_table, guest_entry, guest_entry_address, is_there, maps_page, page_named, page_rights, rights_given,
    table_named,
)
