# SPDX-License-Identifier: GPL-2.0-only
"""Random guests on the engine, judged by the virtual TLB oracle, the model CPU and the audit.

A run is cut into *episodes* of `EPISODE` operations. Each makes a new small VM with two vCPUs, few table pages that
are shared between levels, roots and modes, and few shadow pages, and is a pure function of its seed: episode k of
``fuzz(seed=s)`` is episode 0 of ``fuzz(seed=s + k)``, so a failure is reported and replayed by its own seed.

* `operations` an operation is a tuple of plain integers that says everything: lists can be recorded, cut and shrunk
* `sense`     what an operation's numbers may be, and which registers a CPU takes
* `slots`     what backs guest memory, as the fuzzer set it
* `stage`     the world of an episode, and above it what is done there: `l2_operations`, `guest_operations`, `host_operations`
* `episode`   a VM in the middle of an episode: does operations, under the eyes of the oracle
* `invalidated` what INVLPG should have renewed
* `race`      a store of the other vCPU while a fault is served
* `table_writer` looks at the guest's tables and writes entries
* `situations` sets stages on which much can go wrong, `host_situations` those in which the host has a part; `l2_author` what an L2 does
* `memory_author` what a guest does with memory and tables, `register_author` with registers; `host_author` what user space and the host do
* `guest_author` of all these an episode that hits something
* `worlds`    whether an episode is of these, or of an L1 with extended page tables: `ept_guest`, `ept_cpu`, `ept_author`
* `variety`   whose shadow MMU it is, where a run is of any
* `search`    `fuzz`, `replay`, `shrink`
* `story`     a list of operations as a text file
* `corpus`    lists that reach what no other does, run again first
* `apart`     all of that in a process of its own, whose crash is a find; `jobs` in several
"""

from shadowmmu.check.fuzz.apart import replay_apart, shrink_apart
from shadowmmu.check.fuzz.corpus import fuzz_kept
from shadowmmu.check.fuzz.jobs import fuzz_apart
from shadowmmu.check.fuzz.operations import MODES, NPT, PAGING, Kind, Op, Setup, describe
from shadowmmu.check.fuzz.search import EPISODE, Failure, Report, fuzz, perform, replay, shrink
from shadowmmu.check.fuzz.story import read_story, tell, write_story
from shadowmmu.check.fuzz.variety import ANY, check_kernel

__all__ = [
    "ANY",
    "EPISODE",
    "MODES",
    "NPT",
    "PAGING",
    "Failure",
    "Kind",
    "Op",
    "Report",
    "Setup",
    "check_kernel",
    "describe",
    "fuzz",
    "fuzz_apart",
    "fuzz_kept",
    "perform",
    "read_story",
    "replay",
    "replay_apart",
    "shrink",
    "shrink_apart",
    "tell",
    "write_story",
]
