# SPDX-License-Identifier: GPL-2.0-only
"""The audit after an exit that is served in the CPU's hook: Python, called there, so that the exit itself stays what it is.

It comes where the loop's comes: when the exit has been handled, before the guest is entered again. Nobody above the hook would see what
it raises: that is kept until the run has ended.
"""

import cython
from cython.cimports.shadowmmu.engine.face.vm import Vm
from cython.cimports.shadowmmu.machine.cpu.stop_request import want_stop


@cython.final
@cython.cclass
class QuickAudit:
    """`audit` is called with the VM."""

    def __init__(self, audit: object, vm: Vm) -> None:
        self.audit, self.vm, self.raised = audit, vm, None

    def check(self):
        """Raises what the audit has raised since the last time."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


def audit_exit(quick: QuickPtr) -> cython.void:
    """If it raises something, the CPU stops before its next instruction."""
    with cython.gil:
        audit: QuickAudit = cython.cast(QuickAudit, quick.audit)
        try:
            audit.audit(audit.vm)
        except BaseException as error:
            audit.raised = error
            want_stop(quick.request)
