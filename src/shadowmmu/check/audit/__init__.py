# SPDX-License-Identifier: GPL-2.0-only
"""Audit: every structure of the engine against the invariants I1 to I18, after any operation.

`audit(vm)` returns what is violated, nothing when all is well. It reads the arena and changes nothing. Each file checks
one structure, by `validate_*` functions that name the invariants they decide; `auditor` has what they share.

I11 and I12 speak of what hardware may still use and of the guest's own tables: they are decided by `check/oracle`, at VM
entry and by the virtual TLBs; here only "no entry and no root slot leads to a freed page" is. I15 is seen where stores are made.

Known as Linux's own, and reported only if `strict`: a leaf of an unsync table whose recorded gfn is not that of the guest's
entry, an MMIO mark of the present generation for a gfn that has a memslot, a writable large page with a page logged as
clean, a shadowed table that an entry made of an MMIO mark lets the guest write.

A table that is shadowed and in sync is stored to only under the MMU's eyes, but for stores from outside the VM (a device, the
host's user space): who makes such, says with `untold` which entries they hit, and what only these explain is excused.
"""

from collections.abc import Container

from shadowmmu.check.audit.accounting import validate_accounting
from shadowmmu.check.audit.active_list import validate_active_list
from shadowmmu.check.audit.auditor import Auditor, Violation
from shadowmmu.check.audit.guest_entries import validate_guest_entries
from shadowmmu.check.audit.page_hash import validate_hash
from shadowmmu.check.audit.pools import validate_descriptors, validate_headers, validate_warnings
from shadowmmu.check.audit.reverse_lists import validate_parents, validate_rmaps
from shadowmmu.check.audit.root_roles import validate_root_roles
from shadowmmu.check.audit.root_slots import validate_roots
from shadowmmu.check.audit.special_pages import validate_special_pages
from shadowmmu.check.audit.strict import validate_strictly
from shadowmmu.check.audit.tables import validate_tables
from shadowmmu.check.audit.unsync_marks import validate_unsync
from shadowmmu.check.audit.write_protection import validate_write_protection
from shadowmmu.engine.face.vm import Vm

__all__ = ["Audits", "Violation", "audit"]

GROUND = (validate_warnings, validate_headers, validate_active_list, validate_hash)
"""The checks after these walk headers and lists without fear of loops."""
ABOVE = (
    validate_rmaps,
    validate_parents,
    validate_descriptors,
    validate_tables,
    validate_unsync,
    validate_roots,
    validate_special_pages,
    validate_accounting,
    validate_write_protection,
    validate_guest_entries,
    validate_root_roles,
)


class Audits:
    """Audits of one VM, one after the other.

    `every`: one of so many looks at every entry of every table, at all buckets of the hash and at what memslots count; those
    between at the entries that reverse lists name, and those in which there was something when all was looked at.
    """

    def __init__(self, vm: Vm, strict: bool = False, untold: Container[int] = (), every: int = 1) -> None:
        self.auditor, self.strict = Auditor(vm, strict, untold), strict
        self.every, self.count = every, 0

    def __call__(self, thorough: bool = False) -> list[Violation]:
        """What is violated. `thorough`: all is looked at, whatever its turn; so it is, too, when something has been found."""
        thorough = thorough or self.count % self.every == 0
        self.count += 1
        found = self._look(thorough)
        return found if thorough or not found else self._look(True)

    @property
    def excused(self) -> int:
        """How often an entry was found that only a store unseen by the MMU explains."""
        return self.auditor.excused

    def _look(self, thorough: bool) -> list[Violation]:
        auditor: Auditor = self.auditor
        auditor.begin(thorough)
        for validate in GROUND:
            validate(auditor)
        if not any(violation.invariant in ("I3", "I4", "I14") for violation in auditor.found):
            for validate in ABOVE:
                validate(auditor)
            if self.strict:
                validate_strictly(auditor)
        return auditor.found


def audit(vm: Vm, strict: bool = False, untold: Container[int] = ()) -> list[Violation]:
    """Check everything; at most 50 violations are listed. `strict`: what Linux itself lets happen too.

    `untold`: guest-physical addresses of entries that were stored to from outside the VM.
    """
    return Audits(vm, strict, untold)()
