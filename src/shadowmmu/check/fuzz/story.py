# SPDX-License-Identifier: GPL-2.0-only
"""A list of operations as a text file that reads like a story, and is run again: one operation a line, in numbers and in words."""

import re

from shadowmmu.check.fuzz.operations import AC, IMPLICIT, MODES, Kind, Op, Setup
from shadowmmu.check.fuzz.sense import nonsense
from shadowmmu.engine.face.kernels import rules_of
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.hardware.walk import FETCH, USER, WRITE

TITLE = "# operations of shadowmmu"
OPERATIONS = 100_000
"""Lines of one file; an episode has 3,000."""
LINE = re.compile(r"vcpu ([01]) ([a-z0-9_]+)((?: 0x[0-9a-f]{1,32}){0,4}) *(?:#.*)?")
WORDS = {
    Kind.ACCESS: "{how} {c} bytes at {a:#x}",
    Kind.EMULATED: "{how} {c} bytes at {a:#x}, by an instruction that is emulated",
    Kind.POKE: "stores {c:#x}, {b} bytes, to guest-physical {a:#x}",
    Kind.INVLPG: "executes INVLPG for {a:#x}",
    Kind.CR0: "loads CR0 with {a:#x}",
    Kind.CR3: "loads CR3 with {a:#x}",
    Kind.CR4: "loads CR4 with {a:#x}",
    Kind.EFER: "loads EFER with {a:#x}",
    Kind.MODE: "goes to CR0 {a:#x}, CR3 {b:#x}, CR4 {c:#x}, EFER {d:#x}",
    Kind.SLOT: "memslot {a}: {c} pages from gfn {b:#x}, flags {d:#x}",
    Kind.SWAP: "the host moves {b} pages from gfn {a:#x}",
    Kind.PROTECT: "the host lets gfn {a:#x} be written: {b}",
    Kind.ZAP_ALL: "all shadow pages become obsolete",
    Kind.DIRTY: "the dirty log of memslot {a} is read",
    Kind.VMRUN: "runs an L2 with CR0 {a:#x}, CR3 {b:#x}, CR4 {c:#x}, EFER {d:#x}",
    Kind.VMEXIT: "leaves its L2",
    Kind.L1_STORE: "L1 stores {c:#x}, {b} bytes, to {a:#x} (by its page walk: {d})",
    Kind.L2_MODE: "gives its L2 CR0 {a:#x}, CR3 {b:#x}, CR4 {c:#x}, EFER {d:#x}",
    Kind.L2_REGISTER: "its L2 loads register {a} with {b:#x}",
    Kind.RACE: "{how} at {a:#x}, while the other stores {d:#x} to {c:#x}",
    Kind.HOST: "the host: {a} (0 shadow pages, 1 pages synced until it wants the CPU, 2 its tables change of gfn, "
    "3 it looks whether gfn is in use, 4 it stops shadowing gfn), {b:#x}",
    Kind.MEANWHILE: "{how} at {a:#x}, while (1 all pages become obsolete, 2 the host moves a page) {event} of gfn {c:#x}",
    Kind.BEYOND: "{how} at L2 physical {a:#x}",
    Kind.EPT_RUN: "L1 runs an L2 on the EPT of {a:#x}",
    Kind.INSTRUCTION: "{how} 8 bytes at {b:#x}, by an instruction at {a:#x}",
    Kind.ILLEGAL: "loads register {a} with {b:#x}, which no CPU takes",
    Kind.PKRU: "writes PKRU, {a:#x}",
    Kind.SMM: "all CPUs are in system-management mode: {a}",
    Kind.OUTSIDE: "a device stores {c:#x}, {b} bytes, to guest-physical {a:#x}",
}


def tell(op: Op) -> str:
    """An operation in words."""
    access = op.c if op.kind == Kind.INSTRUCTION else op.b
    mode = "as user" if access & USER else "as supervisor"
    how = f"{mode} {'writes' if access & WRITE else 'fetches' if access & FETCH else 'reads'}{', AC set,' if access & AC else ''}"
    how += ", as the CPU itself," if op.kind == Kind.EMULATED and access & IMPLICIT else ""
    return WORDS[Kind(op.kind)].format(how=how, event=op.b >> 16, a=op.a, b=op.b, c=op.c, d=op.d)


def write_story(setup: Setup, operations: list[Op], found: str = "") -> str:
    """The file of a list; `found`: what it ends in."""
    lines = [TITLE, f"seed {setup.seed}", f"roots {setup.roots}", f"kernel {setup.kernel}", f"modes {' '.join(setup.modes)}", ""]
    for op in operations:
        numbers = f"vcpu {op.vcpu} {Kind(op.kind).name.lower()}" + "".join(f" {value:#x}" for value in op[2:])
        lines.append(f"{numbers:<72} # {tell(op)}")
    return "\n".join([*lines, *([f"# {' '.join(found.split())}"] if found else [])]) + "\n"


def read_story(text: str) -> tuple[Setup, list[Op]]:
    """What `write_story` wrote, or somebody by hand; raises ValueError that names the line."""
    lines = text.splitlines()
    if not lines or lines[0] != TITLE:
        raise ValueError(f"its first line is not {TITLE!r}")
    head: dict[str, str] = {}
    operations: list[Op] = []
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("vcpu "):
            operations.append(_operation(number, line))
        elif line.strip() and not line.startswith("#"):
            name, _, value = line.partition(" ")
            head[name] = value.strip()
    if len(operations) > OPERATIONS:
        raise ValueError(f"it has {len(operations):,} operations, no more than {OPERATIONS:,} are run")
    return _setup(head), operations


def _operation(number: int, line: str) -> Op:
    found = LINE.fullmatch(line.rstrip())
    if found is None or found[2].upper() not in Kind.__members__:
        raise ValueError(f"line {number} is no operation: vcpu, 0 or 1, its kind, up to four numbers as 0x..")
    op = Op(Kind[found[2].upper()], int(found[1]), *(int(word, 16) for word in found[3].split()))
    if wrong := nonsense(op):
        raise ValueError(f"line {number}, {found[2]}: {wrong}")
    return op


def _setup(head: dict[str, str]) -> Setup:
    """The lines before the operations; raises ValueError."""
    known = {"seed", "roots", "kernel", "modes"}
    if head.keys() != known:
        raise ValueError(f"before its operations it must have a line each of {', '.join(sorted(known))}, and no other")
    modes = tuple(head["modes"].split())
    if not head["seed"].isdecimal() or len(head["seed"]) > 20 or int(head["seed"]) >= 1 << 64:
        raise ValueError(f"its seed is {head['seed'][:40]!r}, not a number")
    if head["roots"] not in ROOT_DESIGNS:
        raise ValueError(f"there are no roots {head['roots'][:40]!r}: {', '.join(ROOT_DESIGNS)}")
    rules_of(head["kernel"])
    if not modes or not set(modes) <= set(MODES):
        raise ValueError(f"its modes must be some of {' '.join(MODES)}")
    return Setup(int(head["seed"]), head["roots"], modes, 1, head["kernel"])
