# SPDX-License-Identifier: GPL-2.0-only
"""Faults that come too early: this CPU translates straight-line code ahead of itself, into the next page.

If that page cannot be fetched, or is not canonical, the fault is raised before the instructions in front of it are done,
with the RIP of the first of them. A real CPU raises it at the instruction that needs the page. So the CPU is run again, up
to that one.
"""

from contextlib import suppress

from shadowmmu.machine.emulator.decode import Fetcher, bitness
from shadowmmu.machine.emulator.look_ahead import behind_straight_code, code_with_nested_paging
from shadowmmu.machine.memory.fault_cause import is_on_path
from shadowmmu.machine.memory.guest_tables import l1_physical, path_of
from shadowmmu.machine.memory.linear_memory import PAGE_SIZE, GuestFault, NestedFault, NoMemory
from shadowmmu.machine.seam import Cpu, Exit, ExitKind, State
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vectors import GP

_FETCH, _WRITE = int(Pferr.FETCH), int(Pferr.WRITE)
_PART = 64
"""Bytes of code fetched at a time: an emulated access has no more."""
_SUSPECT = {ExitKind.PAGE_FAULT: _FETCH, ExitKind.NESTED_PAGE_FAULT: _FETCH | _WRITE}
"""Error-code bits of faults that may come too early."""


def run_exactly(cpu: Cpu, fetcher: Fetcher) -> Exit:
    """Run the guest until it exits, at the instruction that does."""
    exit_, rip = cpu.run(), None
    while _may_be_early(exit_) and (state := cpu.state()).rip != rip:
        rip, stop = state.rip, _stop_of(cpu, fetcher, state, exit_)
        if stop is None:
            break
        page = _host_page(fetcher, stop - 1)
        exit_ = cpu.run(stop)  # or to where it changes its own code, from which on this CPU translates anew, and ahead
        if page is None:
            cpu.all_code_changed()
        else:
            cpu.code_changed(page, PAGE_SIZE)  # what is translated there ends at `stop`
        if exit_.kind is ExitKind.HLT and _linear(fetcher, cpu.state()) == stop:
            exit_ = cpu.run()
    return exit_


def _stop_of(cpu: Cpu, fetcher: Fetcher, state: State, exit_: Exit) -> int | None:
    """How far the guest gets before the fetch that has faulted; None: it is there."""
    vcpu = fetcher.memory.vcpu
    if vcpu.vm.tdp:
        vcpu.cr3 = cpu.cr3
    return _instruction_in_need(fetcher, state, exit_)


def _host_page(fetcher: Fetcher, gva: int) -> int | None:
    """Host physical address of the page that is behind this code."""
    vcpu = fetcher.memory.vcpu
    gpa = path_of(vcpu, gva & -PAGE_SIZE).gpa
    at = None if gpa is None else l1_physical(vcpu, gpa)
    host: int | None = None if at is None else vcpu.vm.host_address(at)
    return host


def _may_be_early(exit_: Exit) -> bool:
    """It is a page fault of a fetch, or a #GP as an address that is not canonical raises it."""
    if exit_.kind is ExitKind.EXCEPTION:
        return exit_.number == GP and not exit_.error_code
    return bool(exit_.error_code & _SUSPECT.get(exit_.kind, 0))


def _linear(fetcher: Fetcher, state: State) -> int:
    base = 0 if bitness(state, fetcher.memory.vcpu.efer) == 64 else state.cs.base
    return base + state.rip & fetcher.memory.mask


def _is_of(fetcher: Fetcher, page: int, exit_: Exit) -> bool:
    """The fault may be that of a fetch from the linear address `page`, the first of its page.

    A nested page fault tells a physical address: that of the page, or of an entry on the way to it (a walk is a write).
    """
    if exit_.kind is ExitKind.EXCEPTION:
        return not fetcher.memory.canonical(page)
    if exit_.kind is ExitKind.PAGE_FAULT:
        return bool(exit_.error_code & _FETCH) and exit_.gva & -PAGE_SIZE == page
    if exit_.error_code & _FETCH:
        return exit_.gva % PAGE_SIZE == 0
    return is_on_path(fetcher.memory.vcpu, page, exit_.gva)


def _instruction_in_need(fetcher: Fetcher, state: State, exit_: Exit) -> int | None:
    """Linear address of the first instruction that reaches the next page, whose fetch faulted; None: it is the one at RIP, or the CPU
    has not looked so far ahead, as it ends at each jump."""
    rip = _linear(fetcher, state)
    page = (rip & -PAGE_SIZE) + PAGE_SIZE & fetcher.memory.mask
    if rip % PAGE_SIZE == 0 or page < rip or not _is_of(fetcher, page, exit_):
        return None
    with suppress(GuestFault, NestedFault, NoMemory):
        code = _code(fetcher, state, rip, page - rip)
        return behind_straight_code(code, bitness(state, fetcher.memory.vcpu.efer), rip)
    return None


def _code(fetcher: Fetcher, state: State, at: int, size: int) -> bytes:
    """Code bytes within a page."""
    vcpu = fetcher.memory.vcpu
    if not vcpu.vm.tdp:
        parts = range(at, at + size, _PART)
        return b"".join(fetcher.memory.fetch(part, min(_PART, at + size - part), state.cpl == 3) for part in parts)
    code = code_with_nested_paging(vcpu, at, size)
    if code is None:
        raise NoMemory(f"{at:#x}")
    return code
