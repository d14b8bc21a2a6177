# SPDX-License-Identifier: GPL-2.0-only
"""Random guests on the engine, judged by the virtual TLB oracle, the model CPU and the audit.

A run is cut into *episodes* of `EPISODE` operations. Each makes a new small VM with two vCPUs, few table pages that
are shared between levels, roots and modes, and few shadow pages, and is a pure function of its seed: episode k of
``fuzz(seed=s)`` is episode 0 of ``fuzz(seed=s + k)``, so a failure is reported and replayed by its own seed.

* `ops`    an operation is a tuple of plain integers that says everything: lists can be recorded, cut and shrunk
* `slots`  what backs guest memory, as the fuzzer set it
* `guest`  a VM in the middle of an episode: does operations, under the eyes of the oracle
* `table_writer` looks at the guest's tables and writes entries
* `guest_author` invents operations with it, so that they hit something; `host_author` those of user space and the host
* `race`   a store of the other vCPU while a fault is served
* `run`    `fuzz`, `replay`, `shrink`
"""

from shadowmmu.check.fuzz.operations import MODES, NPT, PAGING, Kind, Op, Setup, describe
from shadowmmu.check.fuzz.search import EPISODE, Failure, Report, fuzz, replay, shrink

__all__ = ["EPISODE", "MODES", "NPT", "PAGING", "Failure", "Kind", "Op", "Report", "Setup", "describe", "fuzz", "replay", "shrink"]
