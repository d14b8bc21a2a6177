# SPDX-License-Identifier: GPL-2.0-only
"""The machine: guests from their first exit to their last, what exits of each kind cost, and code without exits beside bare Unicorn."""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from rows import Row, Rows, best, timed
from unicorn import UC_ARCH_X86, UC_MODE_32, Uc

from shadowmmu import GuestTables
from shadowmmu.machine.loader import Guest, Loaded, load_bytes, read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.seam import Exit, ExitKind

GUESTS = Path(__file__).resolve().parent.parent / "guests"
TOURS = ("pae", "4-level", "adversary", "l1-pae", "l1-4-level")
LOOPS = 20_000_000
LOAD = 0x10000
TIGHT = b"\xb9" + struct.pack("<I", LOOPS) + b"\x40\x49\x75\xfc"  # mov ecx, LOOPS; again: inc eax; dec ecx; jnz again
MEMORY = (
    b"\xb9" + struct.pack("<I", LOOPS // 4) + b"\x01\x05\x00\x80\x01\x00\x03\x05\x04\x80\x01\x00\x49\x75\xf1"
)  # add [18000], eax; add eax, [18004]
HLT = b"\xf4"
ROOT, FRAMES, WINDOW, PAGES, PAGE = 0x100000, 0x400000, 0x40000000, 60_000, 4096
STORM = b"".join(
    (
        b"\xb8", struct.pack("<I", ROOT), b"\x0f\x22\xd8",  # mov eax, ROOT; mov cr3, eax
        b"\x0f\x20\xc0\x0d", struct.pack("<I", 0x80010000), b"\x0f\x22\xc0",  # mov eax, cr0; or eax, PG | WP; mov cr0, eax
        b"\xbf", struct.pack("<I", WINDOW), b"\xb9", struct.pack("<I", PAGES),  # mov edi, WINDOW; mov ecx, PAGES
        b"\x80\x07\x01\x81\xc7\x00\x10\x00\x00\x49\x75\xf4", HLT,  # again: add byte [edi], 1; add edi, 1000h; dec ecx; jnz again
    )
)  # fmt: skip
KINDS = 8


def tours() -> Rows:
    for name in TOURS:
        guest = read_guest(GUESTS / f"{name}.toml")
        machine = Machine(guest)
        start = time.process_time()
        result = machine.run()
        seconds = time.process_time() - start
        if result.reason is not Reason.PASSED:
            raise RuntimeError(f"{name} did not pass: {result.reason}")
        yield Row("machine", f"guest {name}, {machine.exits:,} exits", machine.exits / seconds, "exits/s")


def kinds() -> Rows:
    """CPU time from the end of the exit before to the end of this one, the guest's own instructions between them included."""
    spent: dict[ExitKind, list[float]] = defaultdict(list)
    last = 0.0

    def on_exit(_machine: Machine, exit_: Exit) -> None:
        nonlocal last
        now = time.process_time()
        spent[exit_.kind].append(now - last)
        last = now

    machine = Machine(read_guest(GUESTS / "pae.toml"), on_exit=on_exit)
    last = time.process_time()
    machine.run()
    for kind, costs in sorted(spent.items(), key=lambda item: -sum(item[1]))[:KINDS]:
        yield Row("machine", f"an exit of the PAE guest: {kind.value}, {len(costs):,} of them", sum(costs) / len(costs) * 1e6, "us")


def on_machine(code: bytes) -> float:
    """CPU seconds of a guest that is `code`, without paging, until it halts."""
    guest = Guest(name="loop", image="loop", format="flat", load=LOAD, start="protected", memory_mib=8, end="halt")
    loaded: Loaded = load_bytes(guest, code + HLT)
    machine = Machine(guest, loaded=loaded)
    return timed(machine.run)


def on_unicorn(code: bytes) -> float:
    """The same code on the CPU alone."""
    cpu = Uc(UC_ARCH_X86, UC_MODE_32)
    cpu.mem_map(0, 1 << 20)
    cpu.mem_write(LOAD, code)
    return timed(lambda: cpu.emu_start(LOAD, LOAD + len(code)))


def steady() -> Rows:
    loops = ((f"{LOOPS:,} times three instructions", TIGHT), (f"{LOOPS // 4:,} times four, two of them on memory", MEMORY))
    for title, code in loops:
        ours, bare = (min(run(code) for _ in range(3)) for run in (on_machine, on_unicorn))
        yield Row("machine", f"code without exits, {title}", ours, "s", "bare Unicorn", bare)


def storm(hook: Callable[[Machine, Exit], None] | None) -> float:
    """Exits a second of a guest that reads, then writes each of PAGES pages for the first time, all under 2-level paging."""
    guest = Guest(name="storm", image="storm", format="flat", load=LOAD, start="protected", memory_mib=300, end="halt")
    machine = Machine(guest, loaded=load_bytes(guest, STORM), on_exit=hook)
    tables = GuestTables(machine.vm, "2-level", ROOT)
    tables.map(LOAD, LOAD)
    for number in range(PAGES):
        tables.map(WINDOW + number * PAGE, FRAMES + number % 1024 * PAGE)
    seconds = timed(machine.run)
    if machine.vm.counters()["pf_fixed"] < 2 * PAGES:
        raise RuntimeError("the storm of faults did not come to its end")
    return machine.exits / seconds


def storms() -> Rows:
    """Faults that the MMU mends at once: in the CPU's hook, and with a hook of ours that sees each exit."""

    def look(_machine: Machine, _exit: Exit) -> None:
        pass

    quick, slow = (max(storm(hook) for _ in range(3)) for hook in (None, look))
    yield Row("machine", f"{2 * PAGES:,} faults mended, from guest to guest", quick, "exits/s", "each seen by a hook in Python", slow)


def start() -> Rows:
    guest = read_guest(GUESTS / "pae.toml")
    yield Row("machine", "a machine made, with its CPU", best(lambda: Machine(guest)) / 1e6, "ms")


def rows() -> Rows:
    yield from tours()
    yield from kinds()
    yield from storms()
    yield from steady()
    yield from start()
