# SPDX-License-Identifier: GPL-2.0-only
"""Known bugs, put back into a copy of the engine one by one, and hunted by the random operations alone.

* `bug`    what a bug is: its edits, by function and old text, and what it breaks
* `copy`   a copy of the engine with a bug in it, in which only what changed is built
* `hunter` a process that hunts on such a copy: the engine may crash there, which is a find
* `hunt`   several hunts of one bug, with an empty corpus and seeds from its name, and what came of them
"""
