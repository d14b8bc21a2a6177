"""Compares the dumps of a capture with the tables that the machine's CPU runs on, A and D included: it has set them itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadowmmu.captures.capture import Dump
from shadowmmu.check.compare.dumps import PRESENT, Difference, DumpComparison, LeafComparison
from shadowmmu.check.compare.result import Diverged, Divergence, Page
from shadowmmu.check.rerun.captured_cpu import NESTED_ACCESSED

if TYPE_CHECKING:
    from shadowmmu.check.rerun.driver import Rerun


class StrictComparison(DumpComparison):
    """Nothing is left to the CPU."""

    cpu_bits = 0


class NestedComparison(DumpComparison):
    """What the captured CPU marked is taken over, and counted: ours does not set A in the last level of nested tables."""

    taken = 0

    def _entry(self, kernel: int, engine: int, level: int, table: int, index: int) -> Difference | None:
        self.taken += bool(kernel & PRESENT and kernel & self.cpu_bits & ~engine)
        return super()._entry(kernel, engine, level, table, index)


def compare_tables(run: Rerun, dump: Dump) -> None:
    """Raises Diverged; with special roots only what each address maps to is compared."""
    root, level = run.vmm.vcpu.witness.entered_on
    if run.capture.setup.tdp_mmu and not run.vmm.vm.vcpus[0].guest_mode:
        return  # the TDP MMU's
    if not dump.root or root is None or (run.stream.guest_view and run.stream.recycled):
        return
    if dump.level != level:
        raise run.diverge(f"dump {dump.tag}: the kernel's root has level {dump.level}, ours {level}")
    kind = LeafComparison if run.stream.guest_view else NestedComparison if run.vmm.vm.tdp else StrictComparison
    comparison = kind(run.vmm.vm, run.matcher, dump)
    found = comparison.run(root)
    if isinstance(comparison, NestedComparison) and comparison.taken:
        run.vmm.cpu.adapted[NESTED_ACCESSED] += comparison.taken
    if found:
        view = run.vmm.vm.shadow_page(found.table)
        page = None if view is None else Page(view.hpa, view.gfn, view.role, view.text, view.special)
        raise Diverged(Divergence(f"dump {dump.tag}: {found.text}", run.at, run.operation, page=page))
    run.result.dumps += 1
    run.result.dump_entries += comparison.entries
