# SPDX-License-Identifier: GPL-2.0-only
"""What the MMU does besides faults: address spaces, syncs, fork, nested paging. Called from Python, as a VMM in Python calls."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rows import Row, Rows, best, timed

from shadowmmu import ROOT_DESIGNS, GuestTables, Outcome, Vcpu, Vm

if TYPE_CHECKING:
    from volatility3.framework.layers import intel

PAGE = 4096
SPACES, CACHED = 64, 3
TABLES, ENTRIES = 16, 512
READ, WRITE, USER_WRITE = 0, 2, 6
PRESENT, WRITABLE = 1, 2
NPF_WRITE = 0x1_0000_0006
DATA, FIRST_TABLE = 0x400000, 0x100000


def mapped(vm: Vm, format: str, root: int) -> GuestTables:
    """Tables that map the first page."""
    tables = GuestTables(vm, format, root)
    tables.map(0, DATA)
    return tables


def switches(format: str, roots: str, spaces: int) -> float:
    """Nanoseconds of a CR3 load, the entry after it and one access, going round `spaces` address spaces."""
    vm = Vm(memory_mib=16, roots=roots)
    vcpu = vm.vcpus[0]
    tables = [mapped(vm, format, FIRST_TABLE + number * 8 * PAGE) for number in range(spaces)]
    vcpu.set_sregs(*tables[0].registers)

    def round_trip() -> None:
        for space in tables:
            vcpu.set_cr3(space.root)
            vcpu.enter()
            vcpu.page_fault(0, WRITE)

    round_trip()
    return best(lambda: [round_trip() for _ in range(20)], 20 * spaces)


def address_spaces() -> Rows:
    few, many = switches("4-level", "special", CACHED), switches("4-level", "special", SPACES)
    yield Row("operations", f"CR3 among {SPACES} spaces of a 4-level guest", many, "ns", f"among {CACHED}, whose roots are cached", few)
    legacy = switches("pae", "legacy", SPACES)
    for design in ROOT_DESIGNS:
        if design != "legacy":
            yield Row(
                "operations",
                f"CR3 among {SPACES} spaces of a PAE guest, {design} roots",
                switches("pae", design, SPACES),
                "ns",
                "legacy roots",
                legacy,
            )


class Process(NamedTuple):
    """A 4-level guest process: its data, TABLES full level-1 tables of it, and where the guest sees these tables."""

    vm: Vm
    vcpu: Vcpu
    entries: list[int]  # guest physical
    window: int  # address of the first level-1 table


def process() -> Process:
    vm = Vm(memory_mib=64)
    vcpu = vm.vcpus[0]
    tables = GuestTables(vm, "4-level", FIRST_TABLE)
    entries = [tables.map(number * PAGE, DATA + number * PAGE) for number in range(TABLES * ENTRIES)]
    window = 1 << 30
    for number in range(TABLES):
        tables.map(window + number * PAGE, entries[number * ENTRIES] & -PAGE)
    vcpu.set_sregs(*tables.registers)
    vcpu.enter()
    vcpu.touch_range(0, len(entries), PAGE, WRITE)
    return Process(vm, vcpu, entries, window)


def unsync_all(guest: Process) -> None:
    """The guest may write all its level-1 tables: each is marked unsync on its first write."""
    if guest.vcpu.touch_range(guest.window, TABLES, PAGE, WRITE) != TABLES:
        raise RuntimeError("a level-1 table was not made writable")


def put(guest: Process, entry: int, flag: int, on: bool) -> None:
    """A store of the guest that causes no exit."""
    (old,) = struct.unpack("<Q", guest.vm.read_guest(entry, 8))
    guest.vm.write_guest(entry, struct.pack("<Q", old | flag if on else old & ~flag))


def flush(guest: Process) -> None:
    guest.vcpu.set_cr3(guest.vcpu.cr3)
    guest.vcpu.enter()


def syncs() -> Rows:
    """A CR3 load that syncs TABLES unsync pages, of which an eighth of the entries has changed."""
    guest = process()
    seconds = []
    for number in range(8):
        unsync_all(guest)
        for entry in guest.entries[number::8]:
            put(guest, entry, WRITABLE, on=False)
        seconds.append(timed(lambda: flush(guest)))
    yield Row("operations", "sync of an unsync page, an eighth of it changed", min(seconds) / TABLES * 1e9, "ns")


def forks() -> Rows:
    """What fork does to its parent: all pages lose W, the TLB is flushed, then each page is written again and gets W back by the guest."""
    guest = process()
    refused = 0

    def copy_on_write() -> None:
        nonlocal refused
        for number, entry in enumerate(guest.entries):
            refused += guest.vcpu.page_fault(number * PAGE, WRITE) is Outcome.INJECT
            guest.vcpu.page_fault(guest.window + (number // ENTRIES) * PAGE, WRITE)
            put(guest, entry, WRITABLE, on=True)
            guest.vcpu.page_fault(number * PAGE, WRITE)

    unsync_all(guest)
    for entry in guest.entries:
        put(guest, entry, WRITABLE, on=False)
    flush(guest)
    cost = timed(copy_on_write) / len(guest.entries) * 1e9
    if refused != len(guest.entries):
        raise RuntimeError(f"{refused} of {len(guest.entries)} writes were refused after fork")
    yield Row(
        "operations",
        "fork: a page written again, three faults and a store",
        cost,
        "ns",
        "three calls of `page_fault` that fix nothing",
        nothing(),
    )


def nothing() -> float:
    """Nanoseconds of three warm faults called from Python."""
    vm = Vm(memory_mib=16)
    vcpu = vm.vcpus[0]
    vcpu.set_sregs(*mapped(vm, "4-level", FIRST_TABLE).registers)
    vcpu.enter()
    return best(lambda: [vcpu.page_fault(0, WRITE) for _ in range(30_000)], 10_000)


def nested_faults(format: str, enter: Callable[[Vm, GuestTables], bool], vendor: str, code: int) -> float:
    """Nanoseconds of an L2's first write to a page."""
    costs = []
    for _ in range(3):
        vm = Vm(memory_mib=64, tdp=True, vendor=vendor, shadow_pages=400)
        nested = GuestTables(vm, format, FIRST_TABLE)
        for number in range(TABLES * ENTRIES):
            nested.map(number * PAGE, DATA + number * PAGE)
        if not enter(vm, nested):
            raise RuntimeError(f"{format}: L2 was refused")
        vm.vcpus[0].enter()
        costs.append(timed(lambda vm=vm: vm.vcpus[0].touch_range(0, TABLES * ENTRIES, PAGE, code)))  # type: ignore[misc]
    return min(costs) / (TABLES * ENTRIES) * 1e9


def run_on_npt(vm: Vm, nested: GuestTables) -> bool:
    cr4 = 0x20 if nested.format != "2-level" else 0
    efer = 0x500 if nested.format == "4-level" else 0
    vcpu = vm.vcpus[0]
    return vcpu.set_sregs(0x80000011, 0, cr4, efer) and vcpu.nested_vmrun(1, 0, 0, 0, nested.root)


def run_on_ept(vm: Vm, nested: GuestTables) -> bool:
    vcpu = vm.vcpus[0]
    return vcpu.set_sregs(0x80000011, 0, 0x20, 0x500) and vcpu.nested_vmentry(1, 0, 0, 0, nested.eptp)


def nested() -> Rows:
    plain = nested_faults("4-level", run_on_npt, "svm", NPF_WRITE)
    beside = "4-level NPT"
    yield Row("operations", "nested fault, 4-level NPT of L1", plain, "ns")
    yield Row(
        "operations",
        "nested fault, PAE NPT below two special pages",
        nested_faults("pae", run_on_npt, "svm", NPF_WRITE),
        "ns",
        beside,
        plain,
    )
    yield Row("operations", "nested fault, EPT of L1", nested_faults("ept", run_on_ept, "vmx", NPF_WRITE), "ns", beside, plain)


def translations() -> Rows:
    """An address translated by the guest's tables, one call each, beside another library for Python: volatility3's layer of x86."""
    pages = 512
    vm = Vm(memory_mib=16)
    tables = GuestTables(vm, "4-level", FIRST_TABLE)
    for number in range(pages):
        tables.map(number * PAGE, DATA + number * PAGE)
    vcpu = vm.vcpus[0]
    vcpu.set_sregs(*tables.registers)
    layer = intel_layer(vm.read_guest(0, 16 << 20), tables.root)
    if [layer.translate(number * PAGE)[0] for number in range(pages)] != [vcpu.gva_to_gpa(number * PAGE, READ) for number in range(pages)]:
        raise RuntimeError("volatility3 translates otherwise")
    ours = best(lambda: [vcpu.gva_to_gpa(number * PAGE, READ) for number in range(pages)], pages)
    theirs = best(lambda: [layer.translate(number * PAGE) for number in range(pages)], pages)
    yield Row("operations", "an address translated by the guest's tables, called from Python", ours, "ns", "volatility3", theirs)


def intel_layer(memory: bytes, root: int) -> intel.Intel32e:
    """Imported here: the tests of the other rows need no volatility3."""
    from volatility3.framework import contexts
    from volatility3.framework.layers import intel, physical

    context = contexts.Context()
    context.add_layer(physical.BufferDataLayer(context, "buffer", "memory", buffer=memory))
    context.config["layer.memory_layer"] = "memory"
    context.config["layer.page_map_offset"] = root
    return intel.Intel32e(context, "layer", "guest")


def rows() -> Rows:
    yield from translations()
    yield from address_spaces()
    yield from syncs()
    yield from forks()
    yield from nested()
