# SPDX-License-Identifier: GPL-2.0-only
"""The machine: guests from their first exit to their last, what exits of each kind cost, and code without exits beside bare Unicorn."""

from __future__ import annotations

import ctypes
import gc
import statistics
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

from rows import Row, Rows, best, timed
from unicorn import UC_ARCH_X86, UC_HOOK_BLOCK, UC_MODE_32, Uc
from unicorn.unicorn_py3.unicorn import uclib

from shadowmmu import GuestTables
from shadowmmu.machine.cpu.unicorn_host import SvmHost
from shadowmmu.machine.loader import Guest, Loaded, load_bytes, read_guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.seam import Exit, ExitKind

GUESTS = Path(__file__).resolve().parent.parent / "guests"
TOURS = ("pae", "4-level", "adversary", "l1-2-level", "l1-pae", "l1-4-level", "l1-no-npt")
SHORT, LONG, STEADY_ROUNDS = 2_000_000, 17_000_000, 9
LOAD = 0x10000
TIGHT = b"\x40\x49\x75\xfc"  # again: inc eax; dec ecx; jnz again
MEMORY = b"\x01\x05\x00\x80\x01\x00\x03\x05\x04\x80\x01\x00\x49\x75\xf1"  # again: add [18000], eax; add eax, [18004]; dec ecx; jnz again
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
KINDS, STATE_ROUNDS = 8, 5
TIMES, GDT, IDT, HANDLER, STACK, ABSENT = 50_000, 0x200000, 0x201000, 0x202000, 0x210000, 0x50000000
TABLES = GDT - 16
GATE = struct.pack("<HHHH", HANDLER & 0xFFFF, 8, 0x8E00, HANDLER >> 16)
SET_UP = b"".join(
    (
        b"\x0f\x01\x15", struct.pack("<I", TABLES), b"\x0f\x01\x1d", struct.pack("<I", TABLES + 6),  # lgdt; lidt
        b"\xbc", struct.pack("<I", STACK), b"\xb8", struct.pack("<I", ROOT), b"\x0f\x22\xd8",  # mov esp, STACK; mov eax, ROOT; mov cr3, eax
        b"\x0f\x20\xc3\x81\xcb", struct.pack("<I", 0x80010000), b"\x0f\x22\xc3",  # mov ebx, cr0; or ebx, PG | WP; mov cr0, ebx
        b"\xb9", struct.pack("<I", TIMES),  # mov ecx, TIMES
    )
)  # fmt: skip
SKIP_FIVE = bytes.fromhex("83c404 83042405 cf")  # add esp, 4; add dword [esp], 5; iret
IRET = b"\xcf"
QUICK_KINDS = (
    ("CR2 read", b"\x0f\x20\xd2", IRET),  # mov edx, cr2
    ("CR3 loaded", b"\x0f\x22\xd8", IRET),  # mov cr3, eax
    ("INVLPG", b"\x0f\x01\x3d" + struct.pack("<I", WINDOW), IRET),
    ("CPUID", b"\x51\x31\xc0\x0f\xa2\x59", IRET),  # push ecx; xor eax, eax; cpuid; pop ecx
    ("MSR read", b"\x51\xb9" + struct.pack("<I", 0xC0000082) + b"\x0f\x32\x59", IRET),  # push ecx; mov ecx, LSTAR; rdmsr; pop ecx
    ("INT 80h", b"\xcd\x80", IRET),
    ("page fault of the guest's own", b"\xa1" + struct.pack("<I", ABSENT), SKIP_FIVE),  # mov eax, [ABSENT], over which the handler goes
    ("store to a table", b"\xa3" + struct.pack("<I", ROOT + 0xC00), IRET),  # mov [ROOT + C00h], eax
)


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


def tour(name: str, *, counted: bool) -> float:
    """CPU seconds. Not counted: the hook before each block of code is put where no code is, and no time goes by but that of exits."""
    add = SvmHost.add_compiled_hook

    def add_elsewhere(host: SvmHost, kind: int, *args: int, **more: object) -> int:
        return add(host, kind, *args, where=(1, 1)) if kind == UC_HOOK_BLOCK else add(host, kind, *args, **more)

    with patch.object(SvmHost, "add_compiled_hook", add if counted else add_elsewhere):
        machine = Machine(read_guest(GUESTS / f"{name}.toml"))
    return timed(machine.run)


def counted_tours() -> Rows:
    """What the count of instructions takes of them, which is all that keeps steady code from the speed of bare Unicorn."""
    for name in TOURS:
        rounds = [[tour(name, counted=counted) for counted in (True, False)] for _ in range(3)]
        ours, bare = (min(times) for times in zip(*rounds, strict=True))
        yield Row("machine", f"guest {name}, its instructions counted", ours, "s", "not counted", bare)


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


def times(count: int, code: bytes) -> bytes:
    """A loop that counts in ECX."""
    return b"\xb9" + struct.pack("<I", count) + code


def on_machine(code: bytes) -> float:
    """CPU seconds of a guest that is `code`, without paging, until it halts."""
    guest = Guest(name="loop", image="loop", format="flat", load=LOAD, start="protected", memory_mib=8, end="halt")
    loaded: Loaded = load_bytes(guest, code + HLT)
    machine = Machine(guest, loaded=loaded)
    seconds = timed(machine.run)
    del machine
    gc.collect()  # or its buffer of translated code would be in the way of the next one's
    return seconds


def on_unicorn(code: bytes, *, hooked: bool = False) -> float:
    """The same code on the CPU alone. Hooked: with a function that does nothing before each block."""
    cpu = Uc(UC_ARCH_X86, UC_MODE_32)
    cpu.mem_map(0, 1 << 20)
    cpu.mem_write(LOAD, code)
    if hooked:
        handle, nothing = ctypes.c_size_t(), ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p)
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        uclib.uc_hook_add(cpu._uch, ctypes.byref(handle), ctypes.c_int(UC_HOOK_BLOCK), nothing, None, *everywhere)
    return timed(lambda: cpu.emu_start(LOAD, LOAD + len(code)))


def slope(run: Callable[[bytes], float], code: bytes, instructions: int) -> float:
    """Million instructions a second of the loop alone: of a long run what it takes more than a short one, so that no start is in it."""
    short, long = (run(times(count, code)) for count in (SHORT, LONG))
    return (LONG - SHORT) * instructions / (long - short) / 1e6


def steady() -> Rows:
    sides = (on_machine, on_unicorn, partial(on_unicorn, hooked=True))
    for title, code, instructions in (("three instructions", TIGHT, 3), ("four, two of them on memory", MEMORY, 4)):
        rounds = [[slope(run, code, instructions) for run in sides] for _ in range(STEADY_ROUNDS)]
        ours, bare, hooked = (max(rates) for rates in zip(*rounds, strict=True))
        for name, rate, side in (("code without exits", ours, 0), ("bare Unicorn, a hook that does nothing", hooked, 2)):
            ratios = statistics.quantiles((each[side] / each[1] for each in rounds), n=10)
            work = f"{name}: a loop of {title}, without its start"
            yield Row("machine", work, rate, "million instructions/s", "bare Unicorn", bare, (ratios[0], ratios[8]))


def storm(hook: Callable[[Machine, Exit], None] | None, *, raw_state: bool = True) -> float:
    """Exits a second of a guest that reads, then writes each of PAGES pages for the first time, all under 2-level paging."""
    guest = Guest(name="storm", image="storm", format="flat", load=LOAD, start="protected", memory_mib=300, end="halt")
    machine = Machine(guest, loaded=load_bytes(guest, STORM), on_exit=hook, raw_state=raw_state)
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


def loop_of(code: bytes, handler: bytes, hook: Callable[[Machine, Exit], None] | None, *, raw_state: bool = True) -> float:
    """Exits a second of a guest under 2-level paging that does this TIMES times; `handler` stands behind all gates."""
    guest = Guest(name="loop", image="loop", format="flat", load=LOAD, start="protected", memory_mib=16, end="halt")
    again = struct.pack("<i", -(len(code) + 7))
    loaded = load_bytes(guest, SET_UP + code + b"\x49\x0f\x85" + again + HLT)  # dec ecx; jnz
    machine = Machine(guest, loaded=loaded, on_exit=hook, raw_state=raw_state)
    tables = GuestTables(machine.vm, "2-level", ROOT)
    for page in (LOAD, TABLES & -PAGE, GDT, IDT, HANDLER, STACK - PAGE, ROOT):
        tables.map(page, page)
    for place, data in (
        (GDT, struct.pack("<QQQ", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)),
        (TABLES, struct.pack("<HIHI", 23, GDT, 0x7FF, IDT)),
        (IDT, GATE * 256),
        (HANDLER, handler),
    ):
        machine.vm.write_guest(place, data)
    seconds = timed(machine.run)
    if machine.exits < TIMES:
        raise RuntimeError(f"the guest had {machine.exits} exits, not {TIMES}")
    return machine.exits / seconds


def quick_kinds() -> Rows:
    """The same for exits of other kinds."""

    def look(_machine: Machine, _exit: Exit) -> None:
        pass

    for title, code, handler in QUICK_KINDS:
        quick, slow = (max(loop_of(code, handler, hook) for _ in range(2)) for hook in (None, look))
        yield Row("machine", f"{title}, {TIMES:,} times", quick, "exits/s", "each seen by a hook in Python", slow)


def states() -> Rows:
    """The same exits on the CPU's own state, and on contexts that its public API saves."""
    works: list[tuple[str, Callable[..., float]]] = [(f"{2 * PAGES:,} faults mended", storm)]
    works += [(f"{title}, {TIMES:,} times", partial(loop_of, code, handler)) for title, code, handler in QUICK_KINDS]
    for title, work in works:
        rounds = [(work(None), work(None, raw_state=False)) for _ in range(STATE_ROUNDS)]
        raw, saved = (max(rates) for rates in zip(*rounds, strict=True))
        ratios = statistics.quantiles((one / other for one, other in rounds), n=10)
        yield Row("machine", f"{title}: on the CPU's raw state", raw, "exits/s", "by its public API", saved, (ratios[0], ratios[8]))


def start() -> Rows:
    guest = read_guest(GUESTS / "pae.toml")
    yield Row("machine", "a machine made, with its CPU", best(lambda: Machine(guest)) / 1e6, "ms")


def rows() -> Rows:
    yield from tours()
    yield from kinds()
    yield from storms()
    yield from quick_kinds()
    yield from states()
    yield from steady()
    yield from counted_tours()
    yield from start()
