# SPDX-License-Identifier: GPL-2.0-only
"""L1's nested tables under L2: faults and their causes, live edits, emulated accesses, in every form and every root design."""

from __future__ import annotations

import pytest
from designs import every_design
from nested_bench import L2_CODE, MEMORY, NESTED_ROOT, VMMCALL, Bench, Tables

from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vmcb import SvmExit, TlbControl, Vmcb

P, W, U, RSVD, F = (int(bit) for bit in (Pferr.PRESENT, Pferr.WRITE, Pferr.USER, Pferr.RSVD, Pferr.FETCH))
FINAL, TABLE = int(Pferr.GUEST_FINAL), int(Pferr.GUEST_PAGE)
FORMS = pytest.mark.parametrize("form", ["4-level", "pae", "2-level"])
PAGE = 0x3F0000  # of L2, mapped to itself at first
LOAD = "8b0425" + "08003f00"  # mov eax, [PAGE + 8]
STORE = "890425" + "08003f00"
CALL = "b800003f00 ffd0"  # mov eax, PAGE; call rax
NX, RESERVED = 1 << 63, 1 << 51
LOAD_32, STORE_32 = "a1" + "08003f00", "a3" + "08003f00"


def npf(bench: Bench) -> tuple[int, int]:
    """EXITINFO1 and EXITINFO2 of the nested page fault that L1 got."""
    code, info_1, info_2 = bench.exit()
    assert code == SvmExit.NESTED_PAGE_FAULT, code
    return info_1, info_2


def unpaged(form: str, roots: str) -> Bench:
    """L2 without paging of its own: what it addresses is L2 physical."""
    bench = Bench(form, roots=roots)
    bench.set_mode("unpaged")
    bench.put(PAGE, "c3")
    return bench


FAULTS = [
    (LOAD_32, None, FINAL | U),
    (STORE_32, None, FINAL | U | W),
    (CALL, None, FINAL | U | F),
    (STORE_32, 5, FINAL | U | W | P),
    (LOAD_32, 3, FINAL | U | P),
    (CALL, 7 | NX, FINAL | U | F | P),
    (LOAD_32, 7 | RESERVED, FINAL | U | P | RSVD),
    (STORE_32, 7 | RESERVED, FINAL | U | W | P | RSVD),
]
"""What L2 does, flags of the nested entry (None: not present), EXITINFO1. Entries of 4 bytes have no NX and nothing reserved."""


@every_design
@pytest.mark.parametrize(
    ("form", "code", "flags", "info"),
    [(form, *fault) for form in ("4-level", "pae", "2-level") for fault in FAULTS if form != "2-level" or not (fault[1] or 0) >> 32],
)
def test_faults_on_the_final_address(form: str, code: str, flags: int | None, info: int, roots: str) -> None:
    """L1 hears of the fault, mends the entry, and L2 goes on."""
    bench = unpaged(form, roots)
    bench.l2_done(code)
    bench.nested.map(PAGE, *((0, 0) if flags is None else (PAGE, flags)))
    assert bench.l2(code + VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    if form == "2-level":
        info &= ~F  # without NX a CPU does not tell a fetch
    assert npf(bench) == (info, PAGE if code == CALL else PAGE + 8)
    assert bench.field(Vmcb.RIP) == (PAGE if code == CALL else L2_CODE)
    bench.nested.map(PAGE, PAGE)
    assert bench.run().reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL


FAR = 0x40000000  # a linear address of L2 with tables of its own
FAR_CODE = {
    "load": {True: "8b0425" + "08000040", False: "a1" + "08000040"},
    "store": {True: "890425" + "08000040", False: "a3" + "08000040"},
    "call": {True: "b800000040 ffd0", False: "b800000040 ffd0"},
    "push": {True: "bc00010040 50 bc00502000", False: "bc00010040 50 bc00502000"},  # mov esp, FAR + 100h; push; mov esp back
}


@every_design
@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize(("mode", "level"), [("4-level", 1), ("4-level", 2), ("pae", 1), ("pae", 2), ("2-level", 1)])
@pytest.mark.parametrize("kind", list(FAR_CODE))
def test_faults_on_a_walk_of_l2s_tables(kind: str, mode: str, level: int, present: bool, roots: str) -> None:
    """L1 protects or takes away a page with a table of L2: a walk counts as a write, whatever the access is."""
    bench = Bench("4-level", roots=roots)
    bench.set_mode(mode)
    bench.put(PAGE, "c3")
    bench.l2_tables.map(FAR, PAGE)
    code = FAR_CODE[kind][mode == "4-level"]
    entry = bench.l2_tables.entry(FAR, level)
    bench.nested.map(entry & -0x1000, *((entry & -0x1000, 5) if present else (0, 0)))
    assert bench.l2(code + VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    assert npf(bench) == (TABLE | U | W | (P if present else 0), entry)
    bench.nested.map(entry & -0x1000, entry & -0x1000)
    assert bench.run().reason == "halted"
    assert bench.field(Vmcb.EXIT_CODE) == SvmExit.VMMCALL


@every_design
@FORMS
def test_a_fault_on_the_pdptes_of_l2(form: str, roots: str) -> None:
    """With nested paging the CPU reads PDPTEs from memory at each walk."""
    bench = Bench(form, roots=roots)
    bench.set_mode("pae")
    bench.nested.map(0x50000, 0, 0)
    assert bench.l2(VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    assert npf(bench) == (TABLE | U | W, 0x50000)


@every_design
@pytest.mark.parametrize("flags", [5, 0])
def test_a_store_to_a_protected_table_is_no_walk(flags: int, roots: str) -> None:
    """L2 edits an entry of its own, for an address that the instruction does not use: the final access faults."""
    bench = Bench(roots=roots)
    bench.l2_tables.map(FAR, PAGE)
    entry = bench.l2_tables.entry(FAR)
    bench.nested.map(entry & -0x1000, entry & -0x1000 if flags else 0, flags)
    code = "890425" + entry.to_bytes(4, "little").hex()
    assert bench.l2(code + VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    assert npf(bench) == (FINAL | U | W | (P if flags else 0), entry)


@every_design
@FORMS
def test_user_mode_of_l2_is_nothing_to_nested_tables(form: str, roots: str) -> None:
    """Each nested walk is a user's, at every privilege level of L2."""
    bench = Bench(form, roots=roots)
    bench.set_mode(form, cpl=3)
    bench.nested.map(PAGE, 0, 0)
    code = LOAD if form == "4-level" else LOAD_32
    assert bench.l2(code + VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    assert npf(bench) == (FINAL | U, PAGE + 8)


def test_an_instruction_across_two_pages() -> None:
    """Its second page is not mapped by L1: the fault is a fetch from there."""
    bench = Bench()
    bench.nested.map(L2_CODE + 0x1000, 0, 0)
    bench.put(L2_CODE + 0xFFC, "b844332211" + VMMCALL)
    bench.set(Vmcb.RIP, L2_CODE + 0xFFC)
    assert bench.run().reason == "halted"
    assert npf(bench) == (FINAL | U | F, L2_CODE + 0x1000)
    assert bench.field(Vmcb.RIP) == L2_CODE + 0xFFC


@every_design
@pytest.mark.parametrize("what", ["page", "table"])
def test_what_stands_before_a_page_that_cannot_be_fetched_is_done(what: str, roots: str) -> None:
    """L2 runs on into a page that L1 does not map, or whose table L1 protects: the fault comes when it gets there."""
    bench = Bench(roots=roots)
    bench.l2_tables.map(FAR - 0x1000, PAGE)
    bench.l2_tables.map(FAR, PAGE + 0x1000)
    entry = bench.l2_tables.entry(FAR)
    if what == "page":
        bench.nested.map(PAGE + 0x1000, 0, 0)
    else:
        bench.nested.map(entry & -0x1000, entry & -0x1000, 5)
    bench.set(Vmcb.RIP, FAR - 12)
    bench.put(PAGE + 0xFF4, "ffc0" * 6)  # inc eax, to the end of the page
    bench.put(PAGE + 0x1000, VMMCALL)
    bench.set(Vmcb.RAX, 0)
    assert bench.run().reason == "halted"
    assert npf(bench) == ((FINAL | U | F, PAGE + 0x1000) if what == "page" else (TABLE | U | W | P, entry))
    assert (bench.field(Vmcb.RIP), bench.field(Vmcb.RAX)) == (FAR, 6)


# --- live edits


@every_design
@FORMS
@pytest.mark.parametrize("flush", ["asid", "all", "guest"])
def test_remapping(flush: str, form: str, roots: str) -> None:
    """An L2 page moves to other memory, time and again."""
    bench = unpaged(form, roots)
    for turn in range(6):
        target = 0x100000 + 0x1000 * (turn % 3)
        bench.store(target + 8, 0x1000 + turn, 4)
        bench.nested.map(PAGE, target)
        if flush == "asid":
            bench.set(Vmcb.GUEST_ASID, 2 + turn, 4)
        else:
            bench.set(Vmcb.TLB_CONTROL, TlbControl.ALL if flush == "all" else TlbControl.GUEST, 1)
        bench.l2_done(LOAD_32)
        assert bench.field(Vmcb.RAX) == 0x1000 + turn


@every_design
@FORMS
def test_many_roots(form: str, roots: str) -> None:
    """More nested roots than are cached, in turns; each maps the page elsewhere."""
    bench = unpaged(form, roots)
    tables = []
    for i in range(5):
        own = Tables(bench, 0x300000 + 0x10000 * i, form).identity()
        own.map(PAGE, 0x100000 + 0x1000 * i)
        bench.store(0x100000 + 0x1000 * i + 8, 0x2000 + i, 4)
        tables.append(own)
    for i in (0, 1, 2, 3, 4, 3, 0, 2, 2, 4, 1):
        bench.set(Vmcb.N_CR3, tables[i].root)
        bench.l2_done(LOAD_32)
        assert bench.field(Vmcb.RAX) == 0x2000 + i


@every_design
@FORMS
def test_large_pages(form: str, roots: str) -> None:
    """A large nested page, split, and merged again."""
    bench = unpaged(form, roots)
    size = 4 << 20 if form == "2-level" else 2 << 20
    address = 0x10000000
    load = "a1" + (address + 0x300008).to_bytes(4, "little").hex() if size == 4 << 20 else "a1" + (address + 8).to_bytes(4, "little").hex()
    inside = 0x300000 if size == 4 << 20 else 0
    bench.store(0x400000 + inside + 8, 0xAAAA, 4)
    bench.store(0x100008, 0xBBBB, 4)
    large = bench.nested.entry(address, 2)
    for _ in range(2):
        bench.store(large, 0x400000 | 0x87, bench.nested.size)
        bench.l2_done(load)
        assert bench.field(Vmcb.RAX) == 0xAAAA
        bench.store(large, 0, bench.nested.size)
        bench.nested.map(address + inside, 0x100000)
        bench.l2_done(load)
        assert bench.field(Vmcb.RAX) == 0xBBBB


@every_design
@FORMS
def test_accessed_and_dirty_bits_of_nested_tables(form: str, roots: str) -> None:
    bench = unpaged(form, roots)
    entry, size = bench.nested.entry(PAGE), bench.nested.size
    assert bench.load(entry, size) & 0x60 == 0
    bench.l2_done(LOAD_32)
    assert bench.load(entry, size) & 0x60 == 0x20
    bench.l2_done(STORE_32)
    assert bench.load(entry, size) & 0x60 == 0x60


# --- accesses that the machine does for L2


@every_design
@FORMS
def test_l2_where_l1_has_no_memory(form: str, roots: str) -> None:
    """Reads give all ones, writes go nowhere, L1 hears nothing."""
    bench = unpaged(form, roots)
    bench.nested.map(PAGE, MEMORY)
    for _ in range(2):
        bench.l2_done(STORE_32 + LOAD_32)
        assert bench.field(Vmcb.RAX) == 0xFFFFFFFF


@every_design
@FORMS
def test_l2_writes_l1s_nested_tables(form: str, roots: str) -> None:
    """L1 gives L2 the very table that maps it: what L2 writes there counts at once after a flush."""
    bench = unpaged(form, roots)
    bench.store(0x100008, 0xBBBB, 4)
    entry = bench.nested.entry(PAGE)
    bench.l2_done(LOAD_32)
    bench.l2_done("c705" + entry.to_bytes(4, "little").hex() + "07001000")  # mov dword [entry], 100007h
    assert bench.load(entry, bench.nested.size) & 0xFFFFF000 == 0x100000
    bench.l2_done(LOAD_32)
    assert bench.field(Vmcb.RAX) == 0xBBBB


@every_design
@FORMS
def test_an_emulated_instruction_meets_a_nested_fault(form: str, roots: str) -> None:
    """MOVS from where L1 has no memory to where L1 maps nothing."""
    bench = unpaged(form, roots)
    bench.nested.map(PAGE, MEMORY)
    bench.nested.map(0x3E0000, 0, 0)
    code = "be08003f00 bf10003e00 a5"  # mov esi, PAGE + 8; mov edi, 3e0010h; movsd
    assert bench.l2(code + VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    assert npf(bench) == (FINAL | U | W, 0x3E0010)
    assert bench.field(Vmcb.RIP) == L2_CODE + 10
    bench.nested.map(0x3E0000, 0x3E0000)
    bench.l2_done(code)
    assert bench.load(0x3E0010, 4) == 0xFFFFFFFF


@every_design
def test_an_emulated_instruction_meets_a_protected_table_of_l2(roots: str) -> None:
    bench = Bench(roots=roots)
    bench.nested.map(PAGE, MEMORY)
    bench.l2_tables.map(FAR, 0x3E0000)
    entry = bench.l2_tables.entry(FAR)
    bench.nested.map(entry & -0x1000, 0, 0)
    code = "be08003f00 bf10000040 a5"
    assert bench.l2(code + VMMCALL) == SvmExit.NESTED_PAGE_FAULT
    assert npf(bench) == (TABLE | U | W, entry)


@every_design
@FORMS
def test_l2s_code_lies_in_a_shadowed_table(form: str, roots: str) -> None:
    """The page with L2's code becomes a nested table as well."""
    bench = unpaged(form, roots)
    upper = bench.nested.entry(0x20000000, 2)
    bench.store(upper, L2_CODE | 7, bench.nested.size)
    bench.put(L2_CODE + 0x100, "a1" + "00f00320" + VMMCALL)  # mov eax, [what entry 3fh maps: nothing]
    bench.set(Vmcb.RIP, L2_CODE + 0x100)
    assert bench.run().reason == "halted"
    assert npf(bench) == (FINAL | U, 0x2003F000)


# --- what the face tells


@FORMS
def test_the_face_while_l2_runs(form: str) -> None:
    bench = unpaged(form, "special")
    bench.nested.map(PAGE, 0x123000)
    seen = []

    def look(machine: object, exit_: object) -> None:
        if bench.vcpu.guest_mode:
            seen.append((bench.vcpu.mmu_name, bench.vcpu.ncr3, bench.vcpu.nested_walk(PAGE + 8), bench.vcpu.nested_walk(0x7FF00000)))

    bench.machine.on_exit = look
    bench.l2_done(LOAD_32)
    name, root, walk, nowhere = seen[-1]
    assert (name, root) == ("guest", NESTED_ROOT)
    assert (walk.gpa, walk.hva) == (0x123008, 0x123008)
    assert walk.steps[-1].gpa == bench.nested.entry(PAGE)
    assert walk.steps[-1].entry & 0xFFFFF000 == 0x123000
    assert [step.level for step in walk.steps] == list(range(len(bench.nested.steps), 0, -1))
    assert nowhere.gpa is None
    assert nowhere.steps[-1].entry == 0
    assert (bench.vcpu.mmu_name, bench.vcpu.ncr3, bench.vcpu.nested_walk(PAGE)) == ("root", None, None)
