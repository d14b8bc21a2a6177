# SPDX-License-Identifier: GPL-2.0-only
"""How much is taken of anything that comes from outside. Every reader asks here, and nothing else sets a limit.

Depth has no number of its own: what nests deeper than Python's recursion limit is refused by `files.parsing`.
"""

from __future__ import annotations

import msgspec

KIB, MIB = 1 << 10, 1 << 20

# --- bytes

DESCRIPTION = 64 * KIB
"""A guest's TOML file; those shipped have half a KiB."""
IMAGE = 256 * MIB
"""A guest's image."""
CAPTURE = 16 * MIB
"""A packed capture; the largest known has 30 KiB."""
UNPACKED = 64 * MIB
"""What a packed capture, or a compressed file of the kit's, holds; the largest known has 5 MiB."""
XZ_MEMORY = 128 * MIB
"""What xz may take to unpack; its strongest preset needs half of that."""
KIT_FILE = 16 * MIB
"""Any one file of the kit's, as it lies on the disk."""
SUITE_LOG = 16 * MIB
"""What an image of a suite printed elsewhere; the longest known has 300 KiB."""
BUG = MIB
"""A bug's TOML file, or a diff."""
OPERATIONS = 16 * MIB
"""A list of operations of the fuzz."""
LINE = 8 * KIB
"""An event's line; the kernel's buffer for one is as large."""
NAME = 256
"""Characters of a symbol's name that are shown; the kernel's have at most 512, and most of them 30."""
OUTPUT = 16 * MIB
"""What a guest may print in one run; Linux prints 50 KiB as it starts."""
SOURCE = 4 * MIB
"""One file of another engine's sources; the largest here has 40 KiB."""
TREE = 1 << 30
"""All files of a checkout that is copied, built; this one has 42 MiB."""
MESSAGE = 600
"""Characters of a line that tells of an error."""

# --- time

PATIENCE = 5
"""Seconds for which whoever reads what we write may take nothing."""

# --- counts

EVENTS = 1_000_000
"""Of a capture; the longest known has 15,425."""
DUMPS = 100_000
"""Of a capture: dumps of its tables, and sets of counters."""
ENTRIES = 1_000_000
"""Of one dump."""
FRAMES = 1_000_000
"""Runs of host frames; a kit's file has a line a frame."""
STEPS = 100_000
"""Of a guest: operations, calls of its VMM's script and commands of each, memslots."""
PARTS = 4096
"""Of a captured guest's image."""
SEGMENTS = 256
"""Of an ELF file; Linux has five."""
SECTIONS = 65_536
"""Of an ELF file that are looked through for its symbols."""
SYMBOLS = 1_000_000
"""Of an ELF file; Linux has a fifth of it."""
KINDS = 1_000
"""Of a long trace: names of events, reasons of exits and roots that are told apart, the most frequent of them."""
VMS, VCPUS = 256, 1_024
"""Of a long trace: those that are followed, the first to be met."""
REMEMBERED = 1_000_000
"""Of a long trace: pages, frames, tables and addresses that are remembered at once, of all VMs; some 300 MiB."""
FILES = 100_000
"""Names that are looked at to find the captures in a folder, or the sources of a checkout."""

Events, Dumps, Entries = msgspec.Meta(max_length=EVENTS), msgspec.Meta(max_length=DUMPS), msgspec.Meta(max_length=ENTRIES)
Frames, Steps, Parts = msgspec.Meta(max_length=FRAMES), msgspec.Meta(max_length=STEPS), msgspec.Meta(max_length=PARTS)
"""The counts as msgspec wants them: an array that says it is longer is refused before any of it is made."""
