# SPDX-License-Identifier: GPL-2.0-only
"""Which VM and vCPU an event belongs to: a thread that says "vcpu 0" is one, and another that says the same is another VM's."""

from __future__ import annotations

import re

from shadowmmu.border.limits import VCPUS, VMS
from shadowmmu.trace.ftrace.reader import Told

_VCPU = re.compile(r"vcpu (\d{1,6})\b")
APART = 64
"""Between the threads of a VM's vCPUs."""
_SAYS = ("kvm_entry", "kvm_exit", "kvm_page_fault")


class Threads:
    """Threads to VMs: `vms` has, for each, its vCPUs' threads."""

    def __init__(self) -> None:
        self.vms: list[dict[int, int]] = []
        self.early: set[int] = set()
        """VMs of which a thread's first events were taken for another's: it had not said its vCPU yet."""
        self._of: dict[int, tuple[int, int]] = {}
        self._guessed: dict[int, int] = {}

    def place(self, told: Told) -> tuple[int, int] | None:
        """(VM, vCPU) of an event, of a thread that has said no vCPU (VM, -thread); None: a new vCPU, and there are too many."""
        pid = told.front.pid
        if not pid:
            return 0, 0
        known = self._of.get(pid)
        if known is not None:
            return known
        if told.name in _SAYS and (found := _VCPU.search(told.text)):
            return self._new(pid, int(found[1]))
        number = self._near(pid)
        if len(self._guessed) < VCPUS:
            self._guessed[pid] = number
        return number, -pid

    def _new(self, pid: int, vcpu: int) -> tuple[int, int] | None:
        near = [number for number, threads in enumerate(self.vms) if vcpu not in threads and _began_together(threads, vcpu, pid)]
        if len(self._of) >= VCPUS or (not near and len(self.vms) >= VMS):
            return None
        if not near:
            self.vms.append({})
        number = near[-1] if near else len(self.vms) - 1
        self.vms[number][vcpu] = pid
        if self._guessed.pop(pid, number) != number:
            self.early.add(number)
        self._of[pid] = number, vcpu
        return self._of[pid]

    def _near(self, pid: int) -> int:
        """A thread of no vCPU: of the VM whose threads began last before it."""
        near = [number for number, threads in enumerate(self.vms) if min(threads.values()) <= pid]
        return near[-1] if near else 0


def _began_together(threads: dict[int, int], vcpu: int, pid: int) -> bool:
    """Whether this may be another vCPU's thread of a VM: begun after its first, or shortly before, as a vCPU of a lower number is."""
    first = min(threads.values())
    return first <= pid or (first - pid <= APART and vcpu < min(threads))
