# SPDX-License-Identifier: GPL-2.0-only
"""The types of event fields. The type says how a value is written and how two systems' values are compared."""

from __future__ import annotations

from typing import NewType

Word = NewType("Word", int)
"""A plain number, equal in every system."""
Role = NewType("Role", int)
"""A shadow page's role word; plain, written with its meaning."""
Table = NewType("Table", int)
"""Host physical address of a shadow table. Each system has its own: compared by a one-to-one renaming."""
Entry = NewType("Entry", int)
"""Host physical address of an entry in a shadow table: the table is renamed, the index is plain."""
Frame = NewType("Frame", int)
"""Host page frame number of guest memory, renamed one to one. Bits 52 and above mark errors and missing slots."""
Leaf = NewType("Leaf", int)
"""A last-level shadow entry: its frame is renamed, its flags are plain."""

FRAME_BITS = 0x000F_FFFF_FFFF_F000
"""The bits of an entry that hold an address."""
FRAME_ERROR = 1 << 52
"""Frame numbers from here on are KVM_PFN_ERR_* and KVM_PFN_NOSLOT."""
NO_SLOT = 1 << 63
"""KVM_PFN_NOSLOT: no memslot there."""
