"""What the CPU does with page tables, written from the manuals and not from the engine.

With `shadowmmu.check.oracle` this is the trusted base: plain Python that imports nothing of the engine and
nothing of `shadowmmu.x86`, so that engine and base check each other.

* `walk` one translation of a bare CPU: legacy, PAE, 4- and 5-level tables, EPT, NPT, two dimensions
* `tlb`  TLB and paging-structure caches that keep everything they are allowed to keep
* `cpu`  one vCPU running on the engine's shadow tables

Sources: Intel SDM volume 3, chapters 4 and 28 ("SDM"); AMD APM volume 2, chapters 5 and 15 ("APM").
"""
