# SPDX-License-Identifier: GPL-2.0-only
"""Looks along the guest's present tables that leave no trace: no A or D is set, and what the host has taken away is not fetched.

Compiled, as the author tries many addresses until one leads where it wants.
"""

from shadowmmu.check.fuzz.slots import Slots
from shadowmmu.hardware.walk import Step, TrailEntry, use_entry


class Glance:
    """At guest memory behind `slots`."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def entry(self, gpa, width):
        """0 where there is no memory."""
        value = self.slots.peek(gpa, width)
        return 0 if value is None else value

    def top(self, mode, cr3, pdptes, gva):
        """The first table of a walk; 0: a PDPTE leads to none."""
        if mode.levels != 3:
            return cr3 & ADDRESS
        pdpte: u64 = pdptes[gva >> 30 & 3]
        return 0 if not pdpte & 1 or pdpte & mode.pdpte_reserved else pdpte & ADDRESS

    def small_page(self, mode, cr3, pdptes, gva, access):
        """The guest page that a small page at `gva` maps for `access`, or 0."""
        if not mode.levels:
            return gva >> 12
        table: u64 = self.top(mode, cr3, pdptes, gva)
        rights: u64 = ALL
        step: Step
        for step in mode.steps if table or mode.levels != 3 else ():
            value: u64 = self.entry(table + (gva >> step.shift & step.mask) * mode.entry_size, mode.entry_size)
            fault, table, rights, leaf = use_entry(mode, step, value, rights)
            if fault or (leaf and step.shift != 12):
                return 0
        return table >> 12 if mode.permits(rights, access, False) else 0

    def through(self, mode, cr3, pdptes, among, access, page):
        """The first of the addresses at which a small page maps this guest page for `access`; None: none of them."""
        for gva in among:
            if self.small_page(mode, cr3, pdptes, gva, access) == page:
                return gva
        return None

    def trail(self, mode, cr3, pdptes, gva):
        """The entries of a walk, to the one that stops it if one does."""
        found: list = []
        table: u64 = self.top(mode, cr3, pdptes, gva)
        rights: u64 = ALL
        step: Step
        for number, step in enumerate(mode.steps if table or mode.levels != 3 else ()):
            at: u64 = table + (gva >> step.shift & step.mask) * mode.entry_size
            value: u64 = self.entry(at, mode.entry_size)
            fault, table, rights, leaf = use_entry(mode, step, value, rights)
            found.append(TrailEntry(number, at, value, table, rights))
            if fault or leaf:
                break
        return found
