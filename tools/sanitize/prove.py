# SPDX-License-Identifier: GPL-2.0-only
"""Touches memory that nobody may touch, to see that the sanitizer reports it: the first step of `make sanitize`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable

from shadowmmu import Vm

PAGE = 4096


def vm_with_a_freed_table() -> tuple[Vm, int]:
    """A VM, and the host physical address of a shadow table that is back in the pool."""
    vm = Vm(memory_mib=4)
    vcpu = vm.vcpus[0]
    vcpu.set_sregs(cr0=0x11, cr3=0, cr4=0, efer=0)
    vcpu.enter()
    vcpu.page_fault(0x1000, 0)
    used = {page.hpa for page in vm.shadow_pages()}
    vm.zap_all_fast()
    vcpu.enter()
    return vm, max(used - {page.hpa for page in vm.shadow_pages()})


def freed_table() -> None:
    """The engine's own load."""
    vm, table = vm_with_a_freed_table()
    vm.read_host_u64(table)


def freed_table_after_a_restore() -> None:
    vm, table = vm_with_a_freed_table()
    vm.restore(vm.save())
    vm.read_host_u64(table)


def before_the_frames() -> None:
    (_, _, start), _ = Vm(memory_mib=4).host_regions()
    ctypes.string_at(start - 8, 8)


def behind_the_frames() -> None:
    _, (_, size, start) = Vm(memory_mib=4).host_regions()
    ctypes.string_at(start + size, 8)


CASES: tuple[Callable[[], None], ...] = (freed_table, freed_table_after_a_restore, before_the_frames, behind_the_frames)


def main() -> int:
    """Each case in a process of its own, which the report is to end."""
    silent = []
    for case in CASES:
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        ran = subprocess.run([sys.executable, __file__, case.__name__], env=environment, capture_output=True, text=True)
        if "use-after-poison" not in ran.stderr:
            silent.append(f"{case.__name__}: {ran.stderr.strip() or 'no report'}")
    print("\n".join(silent) or f"the sanitizer reports each of {len(CASES)} faults made on purpose")
    return 1 if silent else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        globals()[sys.argv[1]]()
    else:
        sys.exit(main())
