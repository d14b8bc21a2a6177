"""The engine's events as text, an event a line, under a line for the exit that caused them; two such files can be diffed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from shadowmmu.engine.events import Event
from shadowmmu.engine.role import describe_role
from shadowmmu.machine.cpu import Exit
from shadowmmu.machine.machine import Machine

_SP = "gfn role sp root_count spt"
FIELDS = {
    Event.KVM_MMU_PAGETABLE_WALK: "addr pferr",
    Event.KVM_MMU_PAGING_ELEMENT: "pte level",
    Event.KVM_MMU_SET_ACCESSED_BIT: "gpa",
    Event.KVM_MMU_SET_DIRTY_BIT: "gpa",
    Event.KVM_MMU_WALKER_ERROR: "pferr",
    Event.KVM_MMU_GET_PAGE: _SP,
    Event.KVM_MMU_SYNC_PAGE: _SP,
    Event.KVM_MMU_UNSYNC_PAGE: _SP,
    Event.KVM_MMU_PREPARE_ZAP_PAGE: _SP,
    Event.MARK_MMIO_SPTE: "sptep gfn access gen",
    Event.HANDLE_MMIO_PAGE_FAULT: "addr gfn access",
    Event.FAST_PAGE_FAULT: "gva error_code sptep old new result",
    Event.KVM_MMU_ZAP_ALL_FAST: "gen used_pages",
    Event.CHECK_MMIO_SPTE: "spte kvm_gen spte_gen valid",
    Event.KVM_MMU_SET_SPTE: "gfn spte sptep level",
    Event.KVM_MMU_SPTE_REQUESTED: "gfn pfn level",
    Event.KVM_MMU_SPLIT_HUGE_PAGE: "gfn spte level errno",
    Event.NEW_PGD: "pgd",
    Event.LOAD_PGD: "root level",
    Event.FREE_ROOTS: "mask",
    Event.INVLPG: "gva",
    Event.INVALIDATE_GVA: "gva root",
    Event.PTE_WRITE: "gpa bytes val",
    Event.UNPROTECT_PAGE: "gfn",
    Event.MMU_PAGE_FAULT: "addr error_code",
    Event.MMU_PAGE_FAULT_RET: "ret",
    Event.ZAP_OLDEST: "nr",
    Event.SLOT_REMOVE_WRITE: "slot level",
    Event.WRITE_PROTECT_PT_MASKED: "slot offset mask",
    Event.ZAP_COLLAPSIBLE: "slot",
    Event.INJECT_PAGE_FAULT: "address error_code nested",
    Event.SPECIAL_ALLOC: "role spt",
    Event.SPECIAL_FREE: "role spt",
}
"""Names of the fields of each kind of event; kinds that are not here have none."""
_SP_FLAGS = ((8, "unsync"), (9, "created"), (10, "special"))


class EventLog:
    """Writes what a machine's engine tells; `on_exit` is the hook for the machine."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def on_exit(self, machine: Machine, exit_: Exit) -> None:
        self._file.write(f"# exit {machine.exits}: {exit_.kind.value}\n")
        for record in machine.vm.records():
            self._file.write(event_line(record) + "\n")


def event_line(record: Sequence[int]) -> str:
    """An event: vCPU (- for none), the kernel's name, fields in hexadecimal, roles in the kernel's words."""
    kind, vcpu, *values = record
    names = FIELDS.get(kind, "").split()
    words = [word for name, value in zip(names, values, strict=False) for word in _field(name, value)]
    return " ".join(["-" if vcpu < 0 else str(vcpu), Event(kind).name.lower(), *words])


def _field(name: str, value: int) -> Iterator[str]:
    if name == "sp":
        yield f"gen={value & 0xFF}"
        yield from (flag for bit, flag in _SP_FLAGS if value >> bit & 1)
    elif name == "role":
        yield f"role=({describe_role(value)})"
    else:
        yield f"{name}={value:#x}"
