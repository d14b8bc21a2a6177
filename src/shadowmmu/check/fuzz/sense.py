# SPDX-License-Identifier: GPL-2.0-only
"""Which operations make sense: what their numbers may be. A list from outside is held to that before any of it is done."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from shadowmmu.check.fuzz.operations import (
    AC,
    ALIAS,
    ALIASED,
    DONE_AGAIN,
    GUEST,
    HOLDS_LARGE,
    IMPLICIT,
    MOVE_PAGE,
    MOVED,
    OBSOLETE,
    PAGE,
    SLOTS,
    TABLES,
    USER_MIB,
    WRITES_TABLES,
    Kind,
    Op,
)
from shadowmmu.hardware.walk import (
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PKE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LME,
    EFER_NXE,
    FETCH,
    USER,
    WRITE,
)

CR0_BASE = 0x31  # PE, ET, NE
KEEP = 1 << 63  # of a CR3 that is loaded: its PCID's translations stay
CR0_CD = 1 << 30  # a change of it loads a PAE guest's PDPTEs
WHERE = SLOTS | {ALIAS: ALIASED}
PAGES = USER_MIB << 8  # of guest memory, and of the host's behind it


class Number(NamedTuple):
    """One of an operation's four."""

    name: str
    makes_sense: Callable[[int], bool]
    words: str


def _one_of(name: str, *values: int) -> Number:
    return Number(name, values.__contains__, f"one of {', '.join(map(hex, values))}")


def _bits(name: str, most: int, always: int = 0) -> Number:
    return Number(name, lambda n: not n & ~(most | always) and n & always == always, f"bits of {most | always:#x}, {always:#x} set")


def _to(name: str, first: int, last: int) -> Number:
    return Number(name, lambda n: first <= n <= last, f"{first:#x} to {last:#x}")


HOW = WRITE | USER | FETCH | AC


def _is_access(how: int, also: int = 0) -> bool:
    return not how & ~(HOW | also) and how & (WRITE | FETCH) != WRITE | FETCH


SIZES = 1, 2, 4, 8
ADDRESS, PHYSICAL = _to("address", 0, (1 << 64) - 1), _to("physical address", 0, (1 << GUEST.maxphyaddr) - 1)
SIZE, BYTES = _one_of("size", *SIZES), _to("size", 1, 16)
VALUE, LONG = _to("value", 0, (1 << 128) - 1), _to("value", 0, (1 << 64) - 1)
FRAME, SLOT, FLAG = _to("page", 0, (1 << 52) - 1), _one_of("slot", *WHERE), _to("flag", 0, 1)
BY_CPU = DONE_AGAIN | WRITES_TABLES
ACCESS = Number("access", partial(_is_access, also=BY_CPU), f"bits of {HOW | BY_CPU:#x}, no write a fetch")
EPTP = Number(
    "EPT pointer", lambda n: n & 0xFBF in (0x1E, 0x26) and 0 < n >> 12 <= TABLES, "a table's address and 0x1e or 0x26, 0x40 for A and D"
)
PLAIN = Number("access", _is_access, f"bits of {HOW:#x}, no write a fetch")
EMULATED = Number("access", partial(_is_access, also=IMPLICIT), f"bits of {HOW | IMPLICIT:#x}, no write a fetch")
RACED = Number(
    "access", lambda n: _is_access(n & 0xFFF) and n >> 12 & 0xF < 2 and n >> 16 in SIZES, "an access, 0x1000 for the point, size << 16"
)
MEANWHILE = Number(
    "access", lambda n: _is_access(n & 0xFFF) and n >> 12 in (OBSOLETE << 4, MOVE_PAGE << 4), "an access, and 0x10000 or 0x20000"
)
CR4_PLAIN = CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_SMEP | CR4_SMAP | CR4_PKE
REGISTERS = (
    _bits("CR0", CR0_WP | CR0_PG | CR0_CD, CR0_BASE),
    _bits("CR3", 0xFFFFFFFF),
    _bits("CR4", CR4_PLAIN),
    _bits("EFER", EFER_LME | EFER_NXE),
)
LIMITS = {0: _to("number", 64, 80), 1: _to("number", 0, PAGES)}
"""Of a `Kind.HOST`: shadow pages, no fewer than Linux keeps and no more than any VM has; pages that are synced."""
NUMBERS: dict[Kind, tuple[Number, ...]] = {
    Kind.ACCESS: (ADDRESS, ACCESS, SIZE, VALUE),
    Kind.EMULATED: (ADDRESS, EMULATED, BYTES, VALUE),
    Kind.POKE: (PHYSICAL, BYTES, VALUE),
    Kind.INVLPG: (ADDRESS,),
    Kind.CR0: REGISTERS[:1],
    Kind.CR3: (_bits("CR3", 1 << 63 | 0xFFFFFFFF),),
    Kind.CR4: (_bits("CR4", CR4_PLAIN | CR4_PCIDE),),
    Kind.EFER: REGISTERS[3:],
    Kind.MODE: REGISTERS,
    Kind.SLOT: (SLOT, _to("page", 0, PAGES), _to("pages", 0, PAGES), _to("flags", 0, 2)),
    Kind.SWAP: (FRAME, _to("pages", 1, PAGES)),
    Kind.PROTECT: (FRAME, FLAG),
    Kind.ZAP_ALL: (),
    Kind.DIRTY: (SLOT,),
    Kind.VMRUN: REGISTERS,
    Kind.VMEXIT: (),
    Kind.L1_STORE: (PHYSICAL, SIZE, VALUE, FLAG),
    Kind.L2_MODE: REGISTERS,
    Kind.L2_REGISTER: (_to("register", 0, 3), LONG),
    Kind.RACE: (ADDRESS, RACED, PHYSICAL, LONG),
    Kind.OUTSIDE: (PHYSICAL, SIZE, VALUE),
    Kind.HOST: (_to("which", 0, 4), FRAME),
    Kind.MEANWHILE: (ADDRESS, MEANWHILE, FRAME, LONG),
    Kind.SMM: (FLAG,),
    Kind.ILLEGAL: (_to("register", 0, 3), LONG),
    Kind.BEYOND: (ADDRESS, ACCESS),
    Kind.EPT_RUN: (EPTP,),
    Kind.INSTRUCTION: (ADDRESS, ADDRESS, PLAIN, LONG),
    Kind.PKRU: (_bits("PKRU", 0xFFFFFFFF),),
}


def nonsense(op: Op) -> str:
    """What is wrong with an operation's numbers; nothing if they make sense."""
    numbers = NUMBERS[Kind(op.kind)]
    for number, value in zip(numbers, op[2:], strict=False):
        if not number.makes_sense(value):
            return f"its {number.name} is {value:#x}, not {number.words}"
    if any(op[2 + len(numbers) :]):
        return f"it takes {len(numbers)} numbers"
    return _of_each_other(op, {number.name: value for number, value in zip(numbers, op[2:], strict=False)})


def _of_each_other(op: Op, given: dict[str, int]) -> str:
    """What two of the numbers say together."""
    size = given.get("size", 0)
    if size and given["value"] >> 8 * size:
        return f"its value {given['value']:#x} has more than {size} bytes"
    if op.kind == Kind.ACCESS and op.a % size:
        return f"its address {op.a:#x} is not aligned to {size} bytes"
    if op.kind == Kind.INSTRUCTION and op.b % 8:
        return f"its address {op.b:#x} is not aligned to 8 bytes"
    if op.kind == Kind.EMULATED and op.a % PAGE + size > PAGE:
        return f"its {size} bytes at {op.a:#x} do not lie in one page"
    if op.kind == Kind.SLOT and not _is_place(*op[2:5]):
        return f"slot {op.a} has {WHERE[op.a][1]:#x} pages from {WHERE[op.a][0]:#x} on, or none"
    if op.kind == Kind.HOST and op.a in LIMITS and not LIMITS[op.a].makes_sense(op.b):
        return f"its number is {op.b:#x}, not {LIMITS[op.a].words}"
    if op.kind == Kind.L2_REGISTER and not REGISTERS[op.a].makes_sense(op.b):
        return f"its {REGISTERS[op.a].name} is {op.b:#x}, not {REGISTERS[op.a].words}"
    return ""


def _is_place(slot: int, first: int, pages: int) -> bool:
    """The slot may be there: one where it is moved to as well, one without some pages at either end."""
    home, most = WHERE[slot]
    if slot == HOLDS_LARGE:
        return home <= first <= first + pages <= home + most
    return first in (home, *((MOVED,) if slot == 1 else ())) and pages in (0, most)


def stands(cr0: int, cr4: int, efer: int) -> bool:
    """Whether these control registers can be together (SDM 4.1, APM 14.6.1); if not, an operation that loads them is not done."""
    long = bool(cr0 & CR0_PG and efer & EFER_LME)
    return bool(cr4 & CR4_PAE) if long else not cr4 & CR4_PCIDE
