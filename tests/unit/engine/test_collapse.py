# SPDX-License-Identifier: GPL-2.0-only
"""Dirty logging switched off: small mappings that could be large ones go, others stay, wherever the slot begins and ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu import ROOT_DESIGNS, Vm
from shadowmmu.check.audit import audit

PAGE, MIB2, GIB = 1 << 12, 1 << 21, 1 << 30


def could_be_larger(gpa: int, level: int, start: int, end: int, host_level: int) -> bool:
    """A page of a higher level, as the host has it, lies around `gpa` in the slot [start, end)."""
    sizes = {2: MIB2, 3: GIB}
    return any(start <= gpa & -sizes[up] and (gpa | sizes[up] - 1) < end for up in range(level + 1, host_level + 1))


@settings(max_examples=120)
@given(
    roots=st.sampled_from(ROOT_DESIGNS),
    tdp=st.booleans(),
    base=st.sampled_from((0, MIB2, GIB - MIB2, GIB, 2 * GIB - 2 * MIB2)),
    skew=st.sampled_from((0, 0, PAGE, 3 * PAGE)),
    short=st.sampled_from((0, 0, PAGE, MIB2)),
    logged_first=st.booleans(),
    touched=st.lists(st.integers(0, 1023), min_size=1, max_size=12),
)
def test_what_could_be_larger_goes_and_the_rest_stays(
    roots: str, tdp: bool, base: int, skew: int, short: int, logged_first: bool, touched: list[int]
) -> None:
    """The direct page of a mapping may begin below its slot, where the slot's arrays have nothing."""
    vm = Vm(memory_mib=0, user_mib=6, roots=roots, tdp=tdp)
    vm.set_host_page_level(0, 3 * MIB2, 2)
    start, size = base + skew, 2 * MIB2 - skew - short

    def log(on: bool) -> None:
        vm.set_memslot(0, start, size, skew, log_dirty=on)

    log(logged_first)
    vcpu = vm.vcpus[0]
    vcpu.enter()
    pages = {base + page * PAGE for page in touched if start <= base + page * PAGE < start + size}
    for gpa in pages:
        vcpu.page_fault(gpa, 2)
    before = {(gpa, level): vm.rmap(gpa, level) for gpa in pages for level in (1, 2)}
    log(True)
    log(False)
    for (gpa, level), entries in before.items():
        kept = [] if could_be_larger(gpa, level, start, start + size, 2) else entries
        assert vm.rmap(gpa, level) == kept, f"{gpa:#x}, level {level}"
    assert vm.bugs() == [] and audit(vm) == []
