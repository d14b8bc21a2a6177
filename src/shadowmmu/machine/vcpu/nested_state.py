# SPDX-License-Identifier: GPL-2.0-only
"""What is kept of a run of L2 (KVM: struct svm_nested_state)."""

from shadowmmu.machine.seam import State
from shadowmmu.machine.vcpu.vmcb import Control
from shadowmmu.x86.vmcb import SvmExit, VIntr


class NestedState:
    """One run of L2.

    vmcb     L1 physical address of L1's VMCB
    control  what L1 asked for, as it was at VMRUN
    host     L1's registers behind VMRUN
    cr3      L1's CR3

    PAT, task priority and TSC offset are those of L1, to be given back.
    """

    def __init__(self, vmcb: int, control: Control, host: State, *, cr3: int, pat: int, task_priority: int, tsc_offset: int) -> None:
        self.vmcb, self.control, self.host, self.cr3 = vmcb, control, host, cr3
        self.pat, self.task_priority, self.tsc_offset = pat, task_priority, tsc_offset
        self._v_intr = control.v_intr

    def wants(self, code: int) -> bool:
        """L1 intercepts this exit code, of those that have a bit of their own."""
        asked = self.control.intercepts
        if code < SvmExit.EXCEPTION:
            return bool((asked.cr_read, asked.cr_write, asked.dr_read, asked.dr_write)[code >> 4] >> (code & 15) & 1)
        if code < SvmExit.INTR:
            return bool(asked.exceptions >> (code - SvmExit.EXCEPTION) & 1)
        return bool((asked.first | asked.second << 32) >> (code - SvmExit.INTR) & 1)

    @property
    def masks_interrupts(self) -> bool:
        """V_INTR_MASKING: L2 has a task priority of its own."""
        return bool(self._v_intr & VIntr.MASKING)

    def v_intr(self, task_priority: int) -> int:
        """The field as it is now."""
        return self._v_intr & ~int(VIntr.TPR) | task_priority if self.masks_interrupts else self._v_intr

    def has_interrupt(self, task_priority: int) -> bool:
        """L1 has a virtual interrupt for L2 that its task priority lets through. APM vol. 2 section 15.21.4."""
        v_intr = self.v_intr(task_priority)
        priority = v_intr >> VIntr.PRIORITY_SHIFT & 0xF
        return bool(v_intr & VIntr.IRQ) and (bool(v_intr & VIntr.IGNORE_TPR) or priority > v_intr & VIntr.TPR)

    def take_interrupt(self) -> int:
        """The vector of the virtual interrupt, which is no longer pending."""
        self._v_intr &= ~VIntr.IRQ
        return int(self._v_intr >> VIntr.VECTOR_SHIFT & 0xFF)
