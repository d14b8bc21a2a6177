# SPDX-License-Identifier: GPL-2.0-only
"""Views: what a picture says of shadow tables, and how it is drawn."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import pytest
from designs import every_design
from rich.console import Console, RenderableType
from root_table import ADDRESS, MODES, PAGE, Row, fault, start
from root_table import ROWS as ROOT_TABLE

from shadowmmu import Outcome, Vcpu, Vm
from shadowmmu.engine.arena.role import Role
from shadowmmu.errors import BadInput
from shadowmmu.look.address import MAPPED, MMIO, NESTED_END, NOT_YET, OWN_END, follow_address
from shadowmmu.look.chain import top_chain, whose_root
from shadowmmu.look.data import Hex, to_json
from shadowmmu.look.entries import role_words
from shadowmmu.look.picture import BARE, PASSTHROUGH, SHADOW, SPECIAL, Link, Mmio, Pages, Table, take_picture
from shadowmmu.look.reverse import reverse_maps
from shadowmmu.view.draw_address import draw_address
from shadowmmu.view.draw_picture import ROWS, Scattered, draw_picture, sum_up
from shadowmmu.view.draw_reverse import draw_reverse
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pferr import Pferr

# --- a hand-made guest

PDPT, DIRECTORY, TABLE, TABLE_2 = 0x10020, 0x11000, 0x12000, 0x13000
DATA, LARGE = 0x100000, 0x400000
ALL, READ_ONLY, NX = 0x67, 0x65, 1 << 63
WRITE, USER = int(Pferr.WRITE), int(Pferr.USER)


def store(vm: Vm, gpa: int, *entries: int) -> None:
    vm.write_guest(gpa, struct.pack(f"<{len(entries)}Q", *entries))


def pae_guest(roots: str = "special") -> Vm:
    """Entered, nothing touched: 64 data pages at 0, its own tables from 0x40000, a 2 MB page at 2 MB, MMIO at 0xC0000000."""
    vm = Vm(memory_mib=8, roots=roots)
    store(vm, PDPT, DIRECTORY | 1, 0, 0, (DIRECTORY + 0x3000) | 1)
    store(vm, DIRECTORY, TABLE | ALL, LARGE | ALL | 0x80, TABLE_2 | READ_ONLY)
    store(vm, TABLE, *[DATA + page * 0x1000 | ALL for page in range(64)])
    store(vm, TABLE + 8 * 64, *[0x10000 + page * 0x1000 | ALL | NX for page in range(4)])
    store(vm, TABLE_2, 0x150000 | ALL)
    store(vm, DIRECTORY + 0x3000, 0x15000 | ALL)
    store(vm, 0x15000, 0xF0000000 | ALL, 0xF0001000 | ALL)
    vcpu = vm.vcpus[0]
    vcpu.set_sregs(int(Cr0.PE | Cr0.PG | Cr0.WP), PDPT, int(Cr4.PAE), int(Efer.NXE))
    vcpu.enter()
    return vm


def touch(vcpu: Vcpu, *addresses: int, error_code: int = WRITE | USER) -> None:
    """Fault on each address, until the engine has nothing more to do there."""
    for gva in addresses:
        vcpu.enter()
        outcome = vcpu.page_fault(gva, error_code)
        assert outcome in (Outcome.FIXED, Outcome.SPURIOUS, Outcome.EMULATE), (hex(gva), outcome)
    vcpu.enter()


def toured(roots: str = "special") -> Vm:
    """The guest after a look at everything it has."""
    vm = pae_guest(roots)
    touch(vm.vcpus[0], *range(0, 0x40000, 0x1000), 0x200000, 0x234000)
    touch(vm.vcpus[0], 0x40000, 0x41000, 0x400000, 0xC0000000, 0xC0001000, error_code=USER)
    return vm


# --- what the picture says


def text(drawing: RenderableType) -> str:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(drawing)
    return capture.get()


def tables(table: Table) -> Iterator[Table]:
    """The table and all below it."""
    yield table
    for row in table.rows:
        if isinstance(row, Link):
            yield from tables(row.table)


def root_of(vm: Vm) -> Table:
    root = take_picture(vm).vcpus[0].mmu.root
    assert root is not None
    return root


def test_a_special_root_and_what_hangs_below_it() -> None:
    picture = take_picture(toured())
    (mmu,) = picture.vcpus[0].mmus
    assert (mmu.name, mmu.mode, mmu.guest_levels, mmu.shadow_levels) == ("root", "PAE", 3, 3)
    assert mmu.root_flags == ["efer_nx", "cr0_wp"] and mmu.pgd == PDPT
    assert mmu.root is not None and (mmu.root.kind, mmu.root.level, mmu.root.gfn) == (SPECIAL, 3, None)
    assert picture.tables == {"l3 special": 1, "l2": 2, "l1": 3, "l1 direct": 1} and not picture.elsewhere
    first, last = mmu.root.rows
    assert isinstance(first, Link) and isinstance(last, Link)
    assert [(row.index, row.guest.at, row.guest.value) for row in (first, last) if row.guest] == [
        (0, PDPT, DIRECTORY | 1),
        (3, PDPT + 24, DIRECTORY + 0x3001),
    ]
    assert (first.table.kind, first.table.gfn, first.table.words) == (SHADOW, DIRECTORY >> 12, ["wux"])


def test_pages_are_runs_with_the_reason_for_what_is_write_protected() -> None:
    (directory, _) = root_of(toured()).rows
    assert isinstance(directory, Link)
    leaves, large, read_only = [row.table for row in directory.table.rows if isinstance(row, Link)]
    said = [(row.first, row.last, row.gfn, row.frames, row.rights, row.note) for row in leaves.rows if isinstance(row, Pages)]
    assert said == [
        (0x00, 0x3F, 0x100, 64, "rwxu", ""),
        (0x40, 0x40, 0x10, 1, "rw-u", ""),
        (0x41, 0x41, 0x11, 1, "r--u", "holds table l2"),
        (0x42, 0x43, 0x12, 2, "r--u", "holds table l1"),
    ]
    assert large.direct and large.gfn == LARGE >> 12 and all(row.guest is None for row in large.rows)
    assert read_only.words == ["-ux"] and isinstance(read_only.rows[0], Pages) and not read_only.rows[0].note


def test_marks_of_memory_that_is_not_there() -> None:
    (mark,) = [row for table in tables(root_of(toured())) for row in table.rows if isinstance(row, Mmio)]
    assert (mark.first, mark.last, mark.gfn, mark.generation) == (0, 1, 0xF0000, 2)


def test_a_legacy_root_is_bare_and_holds_its_pages() -> None:
    root = root_of(toured("legacy"))
    assert (root.kind, root.level, root.role) == (BARE, 3, None)
    assert [(row.index, row.table.root_count) for row in root.rows if isinstance(row, Link)] == [(0, 1), (3, 1)]


def test_an_entry_that_the_guest_has_changed_since_is_stale() -> None:
    vm = toured()
    vcpu = vm.vcpus[0]
    store(vm, TABLE + 8 * 66, TABLE | ALL | NX)
    touch(vcpu, 0x42000, error_code=WRITE | USER | int(Pferr.PRESENT))  # the table of 0..1fffff goes unsync
    store(vm, TABLE, 0x150000 | ALL)
    table = next(table for table in tables(root_of(vm)) if table.gfn == TABLE >> 12)
    assert table.unsync and isinstance(table.rows[0], Pages)
    assert (table.rows[0].last, table.rows[0].gfn, table.rows[0].note) == (0, 0x100, "stale")


def test_a_table_with_two_parents_is_told_once() -> None:
    vm = toured()
    store(vm, DIRECTORY + 0x3008, TABLE | ALL)
    touch(vm.vcpus[0], 0xC0200000)
    twins = [table for table in tables(root_of(vm)) if table.gfn == TABLE >> 12 and table.level == 1]
    assert [(table.repeated, table.parents, bool(table.rows)) for table in twins] == [(False, 2, True), (True, 2, False)]


def test_four_byte_entries_are_found_in_their_quadrants() -> None:
    """Guest entry 0x2ff of the directory covers two shadow entries; entry 0x3ff of a table lies in its second half."""
    vm = Vm(memory_mib=8)
    vm.write_guest(0x10000 + 4 * 0x2FF, struct.pack("<I", 0x11000 | ALL))
    vm.write_guest(0x11000 + 4 * 0x3FF, struct.pack("<I", 0x155000 | ALL))
    vm.vcpus[0].set_sregs(int(Cr0.PE | Cr0.PG | Cr0.WP), 0x10000, int(Cr4.PSE), 0)
    touch(vm.vcpus[0], 0xBFFFF000)
    ((second,), (leaf,)) = [table.rows for table in tables(root_of(vm)) if table.kind == SHADOW]
    assert isinstance(second, Link) and second.guest and (second.index, second.guest.at) == (0x1FF, 0x10000 + 4 * 0x2FF)
    assert isinstance(leaf, Pages) and leaf.guest and (leaf.first, leaf.guest.at, leaf.gfn) == (0x1FF, 0x11000 + 4 * 0x3FF, 0x155)
    assert [table.words[0] for table in tables(root_of(vm))][1:] == ["q2", "q1"]


def test_no_root_before_the_first_entry() -> None:
    vm = Vm(memory_mib=1)
    assert take_picture(vm).vcpus[0].mmu.root is None
    assert "no root is loaded" in text(draw_picture(take_picture(vm)))


def test_role_words_leave_out_what_the_root_says() -> None:
    root = int(Role.ACCESS | Role.EFER_NX) | 3
    assert role_words(root, root) == ["wux"]
    assert role_words(int(Role.DIRECT | Role.EFER_NX | Role.CR0_WP) | 0x401, root) == ["-u-", "cr0_wp"]
    assert role_words(int(Role.HAS_4_BYTE_GPTE) | 0x22, root) == ["q1", "---"]


# --- how it is drawn

DRAWN = """\
vCPU 0 · PAE guest, 3 shadow levels, special roots · CR3 10020 · efer_nx cr0_wp
★ l3 special wux                                                        guest entry     shadow entry
├── [000] → l2 gfn 11 wux                                                     11001        100841801
│   ├── [000] → l1 gfn 12 wux                                                 12067        100842827
│   │   ├── [000-03f] → gfn 100..13f  64 pages rwxu                          100067        100100e67
│   │   ├── [040] → gfn 10  rw-u                                   8000000000010067 8000000100010e67
│   │   ├── [041] → gfn 11  r--u holds table l2                    8000000000011067 8000000100011a25
│   │   └── [042-043] → gfn 12..13  2 pages r--u holds table l1    8000000000012067 8000000100012a05
│   ├── [001] → l1 direct gfn 400 wux                                        4000e7        100843827
│   │   ├── [000-007] → gfn 400..407  8 pages rwxu                                ·        100400e67
│   │   └── [030-037] → gfn 430..437  8 pages rwxu                                ·        100430e47
│   └── [002] → l1 gfn 13 -ux                                                 13065        100844827
│       └── [000] → gfn 150  r-xu                                            150067        100150a25
└── [003] → l2 gfn 14 wux                                                     14001        100845801
    └── [000] → l1 gfn 15 wux                                                 15067        100846827
        └── [000-001] → gfn f0000..f0001 no memory (generation 2)          f0000067    80000f0000017

shadow pages: 1 l3 special, 2 l2, 3 l1, 1 l1 direct
★ special: a shadow page of this vCPU only, not hashed, not tracked
direct: maps gfns in a row, shadows no guest table
rwxu: read, write, execute, user · wux after a table: what the levels above allow
"""


def test_the_drawing() -> None:
    drawn = text(draw_picture(take_picture(toured())))
    assert [line.rstrip() for line in drawn.splitlines()] == DRAWN.splitlines()


def nested_row(number: str) -> Vm:
    """The root table's row of that name, after one fault."""
    row = next(row for row in ROOT_TABLE if row.name == number)
    vm = start(row, "special")
    assert fault(vm, row) == Outcome.FIXED
    return vm


@pytest.mark.parametrize(
    ("number", "who", "chain"),
    [
        ("9 npt of a 2-level L1", "L2 on the 2-level nested tables of L1 at 10000", "★ l4 → ★ l3 → l2"),
        ("10 npt of a pae L1, 5-level host", "L2 on the PAE nested tables of L1 at 10000", "★ l5 → ★ l4 → ★ l3 → l2"),
        ("12 npt of a 4-level L1, 5-level host", "L2 on the 4-level nested tables of L1 at 10000", "l5 passthrough → l4 → l3 → l2"),
        ("13 npt of a 5-level L1, 5-level host", "L2 on the 5-level nested tables of L1 at 10000", "l5 → l4 → l3 → l2"),
    ],
)
def test_a_nested_root_says_whose_tables_it_shadows_and_its_chain(number: str, who: str, chain: str) -> None:
    lines = text(draw_picture(take_picture(nested_row(number)))).splitlines()
    assert who in lines[0] and lines[1].startswith("guest MMU, in use") and lines[1].rstrip().endswith(f"· {chain}")
    waits = next(i for i, line in enumerate(lines) if line.startswith("root MMU, waits · direct"))
    assert "no root is loaded" in lines[waits + 1]  # this L1 has never run
    assert ("passthrough: a level above" in "\n".join(lines)) == number.startswith("12")
    assert max(map(len, lines)) <= 100


def test_an_l2_without_nested_paging_has_one_mmu() -> None:
    lines = text(draw_picture(take_picture(nested_row("16 nested, no nested paging, pae L2")))).splitlines()
    assert "PAE L2, no nested paging, 3 shadow levels" in lines[0] and lines[1].startswith("★ l3 special")


def test_the_pdptes_of_nested_tables_stand_beside_the_special_page() -> None:
    """ADDRESS of the root table lies in the second gigabyte: entry 1, beside nested PDPTE 1."""
    root = root_of(nested_row("9 npt of a pae L1"))
    (down,) = [row for row in root.rows if isinstance(row, Link)]
    (pdpte,) = [row for row in down.table.rows if isinstance(row, Link)]
    assert down.guest is None and pdpte.guest is not None
    assert (pdpte.index, pdpte.guest.at, pdpte.guest.value) == (1, 0x10008, 0x11001)


def test_roots_kept_for_later_and_the_mmu_that_waits() -> None:
    """Three nested roots in turn, then back in L1: the guest MMU keeps the last as its root, the others for later."""
    row = next(row for row in ROOT_TABLE if row.name == "12 npt of a 4-level L1, 5-level host")
    vm = start(row, "special")
    vcpu = vm.vcpus[0]
    for ncr3 in (0x20000, 0x30000):
        vcpu.nested_vmexit()
        vcpu.enter()
        assert vcpu.nested_vmrun(int(Cr0.PE), 0, 0, 0, ncr3)
        vcpu.enter()
    vcpu.nested_vmexit()
    vcpu.enter()
    root, guest = take_picture(vm).vcpus[0].mmus
    assert (root.name, root.in_use, root.direct) == ("root", True, True) and root.root is not None and root.root.gfn == 0
    assert (guest.name, guest.in_use, guest.pgd) == ("guest", False, 0x30000)
    assert guest.root is not None and guest.root.kind == PASSTHROUGH
    assert [(kept.pgd, kept.table.kind, kept.table.gfn) for kept in guest.kept] == [
        (0x20000, PASSTHROUGH, 0x20),
        (0x10000, PASSTHROUGH, 0x10),
    ]
    lines = text(draw_picture(take_picture(vm))).splitlines()
    assert any(line.startswith("kept for nested tables at 20000: l5 passthrough gfn 20") for line in lines)


LETTERS = {"s": "★ l{}", "b": "l{} bare", "p": "l{} passthrough", "n": "l{}"}


@every_design
@pytest.mark.parametrize("row", ROOT_TABLE, ids=lambda row: row.name)
def test_the_top_of_a_root_is_what_the_table_of_roots_says(row: Row, roots: str) -> None:
    """Down to the first table that is neither special, bare nor passthrough, for every design."""
    vm = start(row, roots)
    if MODES[row.mode].levels and (row.nested or not row.tdp):
        assert fault(vm, row) == Outcome.FIXED
        (mmu,) = [mmu for mmu in vm.vcpus[0].mmus if mmu.in_use]
        kinds = row.chain(roots)
        names = [LETTERS[kind].format(mmu.levels - i) for i, kind in enumerate(kinds)]
        assert top_chain(vm, mmu).split(" → ") == names[: kinds.index("n") + 1]


@pytest.mark.parametrize(
    ("number", "whose"),
    [
        ("3 pae", "PAE guest"),
        ("6 tdp", "direct tables"),
        ("9 npt of a 2-level L1", "L2 on 2-level nested tables"),
        ("16 nested, no nested paging, pae L2", "PAE L2 without nested paging"),
    ],
)
def test_a_root_is_somebodys(number: str, whose: str) -> None:
    vcpu = start(next(row for row in ROOT_TABLE if row.name == number), "special").vcpus[0]
    assert whose_root(vcpu, next(mmu for mmu in vcpu.mmus if mmu.in_use)) == whose


# --- one address, all the way


@every_design
@pytest.mark.parametrize("row", [row for row in ROOT_TABLE if row.vendor == "svm"], ids=lambda row: row.name)
def test_an_address_leads_through_the_shadow_to_the_page_that_the_tables_name(row: Row, roots: str) -> None:
    """For every row of the root table but EPT's, whose entries have another form."""
    vm = start(row, roots)
    if not MODES[row.mode].levels or (row.tdp and not row.nested):
        vm.set_memslot(1, ADDRESS & ~0xFFF, 0x1000, hva=PAGE)
        vm.vcpus[0].enter()
    if row.tdp and not row.nested:  # L1 has tables of its own, which lie elsewhere
        assert vm.vcpus[0].set_sregs(int(Cr0.PE), 0, 0, 0)
        vm.vcpus[0].enter()
    before = follow_address(vm.vcpus[0], ADDRESS | 0x123)
    assert fault(vm, row) == Outcome.FIXED
    after = follow_address(vm.vcpus[0], ADDRESS | 0x123)
    page = vm.host_page(PAGE)
    assert page is not None and (before.host, before.ends) == (None, NOT_YET)
    assert (after.host, after.memory, after.ends) == (page | 0x123, page | 0x123, MAPPED)
    assert [entry.table.level for entry in after.shadow] == list(range(vm.vcpus[0].levels[1], 0, -1))
    assert len(after.beside) == (0 if row.tdp and not row.nested else MODES[row.mode].levels)
    assert after.allows == ("", "rwxu" if after.beside else "", "rwxu")


def test_an_address_of_l2_goes_through_two_sets_of_tables() -> None:
    """L2's 2-level tables at L2 physical 40005000, which the nested tables of a PAE L1 have at PAGE: two dimensions."""
    row = next(row for row in ROOT_TABLE if row.name == "9 npt of a pae L1")
    vm = start(row, "special")
    vcpu = vm.vcpus[0]
    assert vcpu.nested_vmexit()
    vm.write_guest(PAGE + 4 * (ADDRESS >> 22), struct.pack("<I", ADDRESS | ALL))  # the directory is its own table
    vm.write_guest(PAGE + 4 * (ADDRESS >> 12 & 0x3FF), struct.pack("<I", ADDRESS | READ_ONLY))
    assert vcpu.nested_vmrun(int(Cr0.PE | Cr0.PG), ADDRESS, 0, 0, 0x10000)
    vcpu.enter()
    assert vcpu.page_fault(ADDRESS, WRITE | USER) == Outcome.FIXED
    picture = follow_address(vcpu, 0x40005678)
    found = [(entry.level, entry.at, entry.l1, entry.rights) for entry in picture.own]
    assert found == [(2, ADDRESS + 0x400, PAGE + 0x400, "rwxu"), (1, ADDRESS + 0x14, PAGE + 0x14, "r-xu")]
    assert (picture.whose, picture.physical, picture.gpa) == ("L2", 0x40005678, PAGE + 0x678)
    assert picture.host == (vm.host_page(PAGE) or 0) + 0x678 and picture.allows == ("r-xu", "rwxu", "rwxu")
    drawn = text(draw_address(picture))
    assert "40005678 → L2 physical 40005678 → L1 physical 200678 → host" in drawn
    assert "allowed: its own tables r-xu · nested tables rwxu · shadow rwxu" in drawn
    assert drawn.index("2-level, which the CPU walks") < drawn.index("L1's nested tables at 10000, PAE") < drawn.index("★ l3 special")


def test_where_an_address_ends() -> None:
    """At the guest's tables, at L1's, in memory that is not there, and in a shadow that has not been flushed since."""
    vm = toured()
    vcpu = vm.vcpus[0]
    ends = {address: follow_address(vcpu, address).ends for address in (0x1000, 0x50000, 0x80000000, 0xC0000000)}
    assert ends == {0x1000: MAPPED, 0x50000: OWN_END, 0x80000000: OWN_END, 0xC0000000: MMIO}
    assert "page fault" in text(draw_address(follow_address(vcpu, 0x50000)))
    store(vm, TABLE, 0x150000 | ALL)  # behind the MMU's back
    drawn = text(draw_address(follow_address(vcpu, 0)))
    assert "stale: the tables and memslots now lead to host 100150000" in drawn
    nested = nested_row("10 npt of a pae L1, 5-level host").vcpus[0]
    picture = follow_address(nested, 0x80000000)
    assert picture.ends == NESTED_END and picture.allows == ("", "", "") and "nested page fault for L1" in text(draw_address(picture))


@pytest.mark.parametrize(
    ("number", "address", "told"),
    [
        ("3 pae", 1 << 32, "a PAE guest has addresses of 32 bits"),
        ("4 4-level", 1 << 47, "canonical addresses of 48 bits; give one below 0x800000000000"),
        ("5 5-level", 1 << 56, "canonical addresses of 57 bits"),
        ("9 npt of a pae L1", -1, "a nonpaging L2"),
        ("4 4-level", 1 << 64, "out of range"),
    ],
)
def test_an_address_that_the_mode_cannot_name(number: str, address: int, told: str) -> None:
    vm = start(next(row for row in ROOT_TABLE if row.name == number), "special")
    with pytest.raises(BadInput, match=told):
        follow_address(vm.vcpus[0], address)


def test_the_root_alone() -> None:
    drawn = text(draw_picture(take_picture(toured("legacy")), root_only=True)).splitlines()
    assert drawn[1].startswith("l3 bare") and "held by 1" in drawn[2] and drawn[3].startswith("└── [003]") and not drawn[4].strip()


def test_scattered_pages_are_summed_up() -> None:
    def pages(index: int, rights: str) -> Pages:
        return Pages(first=index, last=index, gfn=Hex(7 * index), frames=1, size="4K", rights=rights, note="", entry=Hex(1), guest=None)

    few = [pages(index, "rw-u") for index in range(ROWS)]
    assert list(sum_up(few)) == few
    (one,) = sum_up([pages(index, "rw-u") for index in range(30)])
    assert isinstance(one, Scattered) and len(one.rows) == 30
    striped = list(sum_up([pages(index, "rw-u" if index % 2 else "r--u") for index in range(30)]))
    assert len(striped) == ROWS + 1 and striped[-1] == 30 - ROWS


# --- reverse maps


@every_design
def test_reverse_maps_have_every_entry_once(roots: str) -> None:
    vm = toured(roots)
    told = {
        (row.first + page, place.hpa + 8 * (place.index + page))
        for row in reverse_maps(vm)
        for place in row.places
        for page in range(row.last - row.first + 1)
    }
    assert told == {(gfn, entry) for gfn in range(0x800) for entry in vm.rmap(gfn << 12)} and len(told) == 64 + 4 + 16 + 1


def test_reverse_maps_are_drawn() -> None:
    lines = [line.split() for line in text(draw_reverse(reverse_maps(toured()))).splitlines()]
    assert ["100..13f", "64", "l1", "12[000-03f]"] in lines and ["400..407", "8", "l1", "direct", "400[000-007]"] in lines


# --- JSON


def test_numbers_that_need_64_bits_are_strings_in_json() -> None:
    vcpu = json.loads(to_json(take_picture(toured())))["vcpus"][0]
    assert vcpu["cr3"] == "0x10020" and vcpu["mmus"][0]["root"]["rows"][0]["table"]["rows"][0]["type"] == "table"
    assert json.loads(to_json({"entry": Hex(1 << 63 | 1)})) == {"entry": "0x8000000000000001"}
    with pytest.raises(NotImplementedError, match="no JSON form"):
        to_json(object())
