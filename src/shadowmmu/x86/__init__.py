# SPDX-License-Identifier: GPL-2.0-only
"""Facts of the architecture, with no state.

The one place where a bit, a mask, an offset or a code of the x86 manuals is written down.
Modules with a ``.pxd`` beside them are compiled; their enums are the same from Python
(``from shadowmmu.x86.pte import Pte``) and from C code (``from cython.cimports...``).

* `control`  CR0, CR4, EFER, RFLAGS bits and what paging mode they select
* `pte`      bits of paging-structure entries, all legacy formats
* `ept`      bits of EPT entries and of the EPT pointer
* `pferr`    #PF error-code bits
* `reserved` reserved-bit masks of every entry format
* `msr`      numbers of model-specific registers
* `vmcb`     AMD-V control block offsets, intercepts and exit codes
"""
