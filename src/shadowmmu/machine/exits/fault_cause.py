# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault a nested page fault is: the guest's walk of its own tables, or its access itself.

EXITINFO1 has a bit for each (APM vol. 2 section 15.25.6), and this processor does not tell them. A walk counts as a
write of the table, so only a write is in doubt.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iced_x86 import Instruction, InstructionInfoFactory, MemorySizeExt

from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.memory.guest_tables import GUEST_FINAL, GUEST_PAGE, PAGE_SIZE, paging_of, path_of
from shadowmmu.machine.seam import State

if TYPE_CHECKING:
    from shadowmmu import Vcpu


def write_fault_cause(vcpu: "Vcpu", state: State, instruction: Instruction | None, gpa: int) -> int:
    """GUEST_PAGE or GUEST_FINAL for a write fault at `gpa`; `instruction` is the one at RIP, None if it cannot be fetched.

    A fault on a table is known by its address, that of an entry for something the instruction touches. Addresses the
    CPU touches by itself come last: an instruction that stores to an entry for one of them seldom uses it.
    """
    if not paging_of(vcpu).levels:
        return GUEST_FINAL
    if instruction is None:
        return GUEST_PAGE  # a walk for the code itself
    paths = [path_of(vcpu, gva) for gva in _touched(state, instruction, vcpu.efer)]
    if any(gpa in path.entries for path in paths):
        return GUEST_PAGE
    if any(path.gpa is not None and path.gpa // PAGE_SIZE == gpa // PAGE_SIZE for path in paths):
        return GUEST_FINAL
    return GUEST_PAGE if any(gpa in path_of(vcpu, gva).entries for gva in _descriptor_tables(state)) else GUEST_FINAL


def _touched(state: State, instruction: Instruction, efer: int) -> Iterator[int]:
    """First and last linear address of the instruction and of each of its memory operands."""
    operands = Operands(instruction, state, efer)
    code = state.rip if operands.mode == 64 else state.cs.base + state.rip
    yield code & operands.mask
    yield code + instruction.len - 1 & operands.mask
    for used in InstructionInfoFactory().info(instruction).used_memory():
        first = operands.used_address(used)
        yield first
        yield first + max(MemorySizeExt.size(used.memory_size), 1) - 1 & operands.mask


def _descriptor_tables(state: State) -> Iterator[int]:
    """A linear address in each page of GDT, IDT, LDT and TSS."""
    system = state.system
    for table in (system.gdtr, system.idtr, system.ldtr, system.tr):
        yield from range(table.base & -PAGE_SIZE, table.base + min(table.limit, 0xFFFF) + 1, PAGE_SIZE)
