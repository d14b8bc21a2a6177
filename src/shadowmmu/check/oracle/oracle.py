# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Virtual TLB oracle: what the guest's own tables have allowed since the guest last invalidated.

Shadow paging emulates a TLB. For each vCPU, each PCID it has used and a set of watched addresses (`AddressSpace`) the
oracle follows every translation that a bare CPU of the guest could hold:

* `tables`: for every level the set of (table, rights) that the CPU, or a paging-structure cache, can have reached;
  an entry that changes adds what it now leads to (SDM 4.10.3);
* `pages`: for every watched page the set of leaf translations, rights and D included, likewise (SDM 4.10.2).

An entry counts from the moment its A bit is set (SDM 4.8). What the manuals say must be forgotten is forgotten
(SDM 4.10.4.1): MOV CR3 drops all but global pages, INVLPG and a #PF the pages that hold the address, changes of
CR0.PG, CR4.PGE, CR4.PAE and the like everything; `tables` start anew at each of these.

Checked:
1. An access that the CPU completed at host address h: some member of `pages` leads to a guest address that the
   memslots now back with h, and allows the access under the present CR0.WP, SMEP, SMAP and EFLAGS.AC; a write also
   needs D in that leaf and a writable slot. Without paging only gpa = gva.
2. A fault given to the guest: #PF, its address and error code exactly those of a walk of the present tables.
   Conversely a fault that the present tables do not give must not be injected.
3. A translation made for the emulator: present tables, exactly, faults included. Without paging the emulator is
   never asked for a load or fetch of memory.
4. A and D: after the engine has walked for an access, the entries used have A, the leaf of a write has D, and nothing
   else in them has changed. After a fault nothing has changed.
5. PDPTEs: a control-register write is refused if and only if a present PDPTE has reserved bits (SDM 4.4.1).

Not checked: addresses that are not watched; emulated accesses of a PAE L2 whose PDPTEs cannot be loaded; that an entry
which is not used has no A bit; memory types; what the guest reads (same host memory, so 1 covers it); that the engine
faults less than it might. Rule 2 is stricter than the architecture, which also allows stale faults. A PCID counts as
walked all the time, loaded or not; a #PF for a not-present page drops nothing (a bare CPU drops the address).

Known differences of Linux from a bare CPU. They are allowed here, unless `strict`:
* I/D in the error code with EFER.NXE but without CR4.PAE: Linux sets it.
* A table in a read-only memslot: A and D are taken as set (there they cannot be).
* A table outside all memslots reads as not present. 4 MB pages name 36 physical bits.
* With CR0.WP=0 Linux maps a user page that the supervisor writes, but the guest's entry does not let it, as a
  supervisor page; if EFLAGS.AC allowed that write under SMAP, the page stays within reach after AC is cleared.
* Linux reports a fetch in the nested fault of an NPT without NX if L1 has CR4.SMEP.
* A nested fault met while the emulator walks L2's tables is reported at the page, not at the entry or byte in it.
* Reserved bits of a PDPTE of an NPT are not looked at; those of its address lead outside memory.
* A #PF drops the address from the shadow of the present CR3 alone. If the guest loads another CR3 with the same PCID
  and keeps its translations (CR3 bit 63), those of the first stay within reach.
* With paging it may be asked for one: syncing renews an MMIO mark although a memslot has been made there meanwhile.
* A store from outside the VM to a table that is shadowed goes unseen: what the entry was stays in force until the guest stores to it.
* A store by another gfn of a table's host memory goes unseen, too, as tables are protected by gfn: what its entries were counts on.
* A table where a memslot has come after MMIO was done there: the guest may store to it unseen, so what its entries were counts on.
* Shadow pages do not record EFER.NXE, CR4.PSE and PAE-versus-long mode, so after a change of one of them an entry
  may still be used as the other setting reads it: bit 63, bits 52-62, and bit 7 of a 4-byte PDE.
"""

from collections.abc import Iterable

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.virtual_tlb import VirtualTlb
from shadowmmu.check.oracle.watched_guest import WatchedGuest
from shadowmmu.hardware.walk import Features


class Oracle(WatchedGuest):
    """The virtual TLBs of all vCPUs of one VM; guest stores reach all of them."""

    def __init__(self, memory: GuestMemory, watched: Iterable[int], vcpus: int, features: Features, strict: bool = False) -> None:
        super().__init__(memory, watched, features, strict)
        self.vcpus = tuple(VirtualTlb(self, f"vcpu {i}") for i in range(vcpus))
