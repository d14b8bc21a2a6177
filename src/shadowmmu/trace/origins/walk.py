# SPDX-License-Identifier: GPL-2.0-only
"""Origins of what a walk of the guest's tables tells."""

from __future__ import annotations

from shadowmmu.trace import events as e
from shadowmmu.trace.origins.origin import Around, case

PRESENT, RESERVED, KEY, ACCESS = 1, 8, 0x20, 0x17
"""Bits of a #PF error code (SDM vol. 3 section 4.7)."""
_STEPS = (e.Walk, e.PagingElement, e.SetAccessedBit, e.SetDirtyBit)


def of_a_fault(at: Around) -> bool:
    """A fault under way asked for the walk, of its own access; a stale mark of MMIO may have been looked at before.

    Where the fault is one of MMIO that the vCPU remembers, the emulator walks first, to fetch the instruction.
    """
    fault = at.cause(e.CheckMmioSpte)
    return isinstance(fault, e.MmuPageFault) and at.event.pferr == fault.err & ACCESS


def of_an_l2_address(at: Around) -> bool:
    """In the middle of the walk of L2's tables, each address of which is L2's."""
    in_l2 = at.in_l2
    if in_l2 is None:
        in_l2 = isinstance(at.last(e.NestedVmenter, e.NestedVmexitInject), e.NestedVmenter)
    return at.nested_paging and in_l2 and isinstance(at.cause(), _STEPS)


def is_pdpte_register(at: Around) -> bool:
    """Level 3 is read first, and is no table: PAE paging."""
    return at.event.level == 3 and isinstance(at.cause(), e.Walk) and not (at.after and getattr(at.after[0], "level", 2) != 2)


def _code(at: Around) -> int:
    return int(at.event.pferr)


def is_table_missing(at: Around) -> bool:
    """The entry that the walk read last is present, or it read none: it ended where the next table should be."""
    step = at.cause(e.SetAccessedBit, e.SetDirtyBit)
    return isinstance(step, e.Walk) or (isinstance(step, e.PagingElement) and bool(step.pte & PRESENT))


def is_refused_store(at: Around) -> bool:
    return isinstance(at.cause(), e.SetAccessedBit | e.SetDirtyBit)


CASES = (
    case(
        e.Walk, "of a fault", "walker.walk_addr", "FNAME(page_fault), FNAME(walk_addr)",
        "A fault of an MMU that shadows guest tables starts with a walk of them, for the access that the error code tells.",
        decider="fault.shadow_page_fault", when=of_a_fault,
    ),
    case(
        e.Walk, "of an L2 physical address", "walker.walk_addr", "kvm_translate_gpa",
        "Each table address of L2's, and the address found, goes through L1's nested tables first, as a user access.",
        decider="walker.translate_gpa", when=of_an_l2_address,
    ),
    case(
        e.Walk, "for the emulator", "walker.walk_addr", "FNAME(gva_to_gpa)",
        "The emulator translates each linear address it touches or fetches from, as the CPU would.",
        decider="walker.gva_to_gpa",
    ),
    case(
        e.PagingElement, "a PDPTE of PAE paging", "walker.walk_pdptr", "FNAME(walk_addr_generic)",
        "The uppermost entry of PAE paging is taken from the PDPTE registers, which are loaded with CR3, not from memory.",
        decider="mmu.get_pdptr", when=is_pdpte_register,
    ),
    case(
        e.PagingElement, "", "walker.walk_tables", "FNAME(walk_addr_generic)",
        "Each level's entry is read from guest memory, from the top down to the one that maps the page.",
        decider="walker.read_table",
    ),
    case(
        e.SetAccessedBit, "", "walker.update_accessed_dirty", "FNAME(update_accessed_dirty_bits)",
        "After a walk without a fault, A is set in every entry walked that lacks it, from the top down.",
    ),
    case(
        e.SetDirtyBit, "", "walker.update_accessed_dirty", "FNAME(update_accessed_dirty_bits)",
        "After a walk for a write, D is set in the entry that maps the page.",
    ),
    case(
        e.WalkerError, "an A or D bit cannot be stored", "walker.walk_fault", "FNAME(update_accessed_dirty_bits)",
        "The host has made the table's page read-only: the guest gets a fault without P.",
        decider="walker.update_accessed_dirty", when=is_refused_store,
    ),
    case(
        e.WalkerError, "reserved bits", "walker.walk_fault", "FNAME(is_rsvd_bits_set)",
        "A present entry has a bit set that is reserved at its level in this mode.",
        decider="walker.walk_tables", when=lambda at: bool(_code(at) & RESERVED),
    ),
    case(
        e.WalkerError, "a protection key forbids it", "walker.walk_fault", "permission_fault",
        "PKRU denies the access to pages of this key (SDM vol. 3 section 4.6.2).",
        decider="walker.permission_fault", when=lambda at: bool(_code(at) & PRESENT and _code(at) & KEY),
    ),
    case(
        e.WalkerError, "rights", "walker.walk_fault", "permission_fault",
        "The rights of all levels together do not allow the access, under CR0.WP, SMEP, SMAP and EFER.NXE.",
        decider="walker.permission_fault", when=lambda at: bool(_code(at) & PRESENT),
    ),
    case(
        e.WalkerError, "the table is not in memory", "walker.walk_fault", "FNAME(walk_addr_generic)",
        "No memslot holds the table, or the address is beyond what its tables reach: as if the entry were not present.",
        decider="walker.walk_once", ids="H2", when=is_table_missing,
    ),
    case(
        e.WalkerError, "an entry is not present", "walker.walk_fault", "FNAME(walk_addr_generic)",
        "The walk ends at an entry without P; the error code has the access's bits, and I/D only with NXE or SMEP.",
        decider="walker.walk_tables",
    ),
)  # fmt: skip
