# SPDX-License-Identifier: GPL-2.0-only
"""What the CPU does with page tables, written from the manuals and not from the engine.

With `shadowmmu.check.oracle.oracle` this is the trusted base, and imports nothing else of this project: a bare CPU's page
`walk`, a `tlb` that keeps all it may keep, a `cpu` that runs on the engine's shadow tables.
Sources: Intel SDM volume 3, chapters 4 and 28 ("SDM"); AMD APM volume 2, chapters 5 and 15 ("APM").
"""
