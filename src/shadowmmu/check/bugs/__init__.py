# SPDX-License-Identifier: GPL-2.0-only
"""Known bugs, put back into a copy of the engine one by one, and hunted by the random operations alone.

* `bug`    what a bug is: its edits, by function and old text, and what it breaks
* `copy`   a copy of the engine with a bug in it, in which only what changed is built
* `hunt`   several hunts of one bug by `shadowmmu fuzz` of that copy, with an empty corpus and seeds from its name, and what came of them
"""
