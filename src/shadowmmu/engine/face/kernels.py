# SPDX-License-Identifier: GPL-2.0-only
"""The kernels whose shadow MMU a VM can have: each a set of rules, named by what they say. docs/kernels.md tells more of them."""

import re

SINCE_6_12 = {
    "sync_keeps": "a sync leaves an entry alone whose gfn and rights are unchanged, instead of making it anew",
    "invlpg_syncs": "INVLPG syncs its entry, instead of zapping it and mapping ahead of a fault",
    "hides_root": "a CR3 outside memory gives a table of nothing, instead of a shutdown",
    "hides_pdpte": "a PDPTE outside memory counts as absent, instead of a shutdown",
    "masks_root_gfn": "of CR3 only bits 51-12 are the root's address",
    "wp_needs_paging": "CR0.WP changed without paging changes nothing",
    "sregs_flush": "KVM_SET_SREGS that resets the MMU flushes the guest's TLB, too",
    "wide_error_code": "bits 32 and 33 of a nested fault's error code reach the fault path",
    "ignores_self_change": "a large page over its own tables is limited by what is shadowed alone",
    "retries_zapped": "L1's write to a shadowed table, by its page walk, is tried again only if something was zapped",
    "nx_marks_nonpaging": "pages made for NX below nonpaging roots are counted",
    "nx_keeps_marked": "a small table stops a huge page only if it was made for NX",
    "retries_tables": "an instruction is done again, in place of its emulation, only if a table was in its way",
    "unprotects_late": "a fault while an event is delivered stops the shadowing of a table only if that is in the way of a write",
    "nonpresent_bit_63": "an entry with nothing in it is bit 63 alone, not 0",
    "vmrun_drops_lma": "L2's EFER.LMA without LME is none",
}
SINCE_7_3 = {
    "sync_keeps_accessed": "an entry that a sync makes anew has A",
    "smep_in_role": "CR4.SMEP makes pages of its own, also with CR0.WP",
    "npt_role_plain": "a shadow NPT has WP in its role, and neither SMEP nor SMAP of L1's",
    "dirties_writable": "D comes with W also if the old leaf was writable",
    "zaps_written_child": "an emulated write zaps a nested child that it leaves without parents",
    "short_mmio_gen": "the generation in a mark of MMIO has 18 bits, not 19",
    "lifts_no_ept": "with CR0.WP=0 nothing is made writable in L1's EPT",
    "moved_ept_bits": "KVM's own bits of an EPT entry lie elsewhere",
    "mmio_loads_walk": "a load from where the last fault found no memory walks the guest's tables again",
    "flushes_write_alone": "a changed entry is flushed if it loses MMU-writable, not for A or D",
    "ad_bits_always": "an EPT entry has A and D also where the hardware does not use them",
    "vmrun_reloads_pdptes": "VMRUN with nested paging makes L2's PDPTEs to be read again",
}
IF_ASKED = {"zaps_slot_alone": "a memslot that goes takes its own mappings and tables with it, not all"}
"""What no kernel does unless the VMM asks for it."""
RULES = SINCE_6_12 | SINCE_7_3 | IF_ASKED
"""What each says."""
KERNELS = {"6.1": frozenset[str](), "6.12": frozenset(SINCE_6_12), "7.3": frozenset(SINCE_6_12 | SINCE_7_3)}
"""By series, oldest first. The first has no rule: it is what the engine does where none says otherwise."""
DEFAULT_KERNEL = "7.3"


def series_of(kernel: str) -> str:
    """The kernel, without the rules that are changed."""
    return re.split(r"[+-]", kernel)[0]


def rules_of(kernel: str) -> frozenset[str]:
    """Those of a series, or of one with some changed: "7.3-sync_keeps" or "6.1+hides_root". Raises ValueError."""
    series, *changes = re.split(r"(?=[+-])", kernel)
    if series not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}; choose one of {', '.join(map(repr, KERNELS))}")
    rules = KERNELS[series]
    for change in changes:
        if change[1:] not in RULES:
            raise ValueError(f"kernel is {kernel!r}, and {change[1:]!r} is no rule; choose any of {', '.join(RULES)}")
        rules = rules | {change[1:]} if change[0] == "+" else rules - {change[1:]}
    return rules


def kernel_of_release(release: str) -> str:
    """The series that a release is of ("6.12.117+deb12-amd64" is of 6.12); ValueError if it is none of these."""
    for name in KERNELS:
        if release == name or release.startswith((name + ".", name + "-")):
            return name
    raise ValueError(f"Linux {release} is not known here; known are {', '.join(KERNELS)}")
