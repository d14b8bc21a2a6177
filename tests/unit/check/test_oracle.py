# SPDX-License-Identifier: GPL-2.0-only
"""The virtual TLB oracle on hand-made guest tables: what it accepts, what it condemns, and with what words."""

import pytest

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.oracle import Oracle
from shadowmmu.check.oracle.virtual_tlb import VirtualTlb
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import FETCH, USER, WRITE, Features

P, W, U, A, D, PS, G, NX = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 1 << 63
TABLE = P | W | U | A
PAGE = P | W | U | A | D
CR0, CR4, EFER = hw.CR0_PG | hw.CR0_WP, hw.CR4_PAE, hw.EFER_LME | hw.EFER_NXE
GVA = 0x40201000
HOST = 0x100000000  # host address of guest address 0


class Memory(GuestMemory):
    """64 guest pages at HOST; `slots` may be cut, `readonly` pages refuse stores."""

    def __init__(self) -> None:
        self.bytes = bytearray(64 << 12)
        self.absent: set[int] = set()
        self.readonly: set[int] = set()
        self.moved: dict[int, int] = {}
        self.aliased: set[int] = set()

    def host(self, gpa: int) -> int | None:
        gfn = gpa >> 12
        if gfn >= 64 or gfn in self.absent:
            return None
        return HOST + (self.moved.get(gfn, gfn) << 12 | gpa & 0xFFF)

    def writable(self, gpa: int) -> bool:
        return self.host(gpa) is not None and gpa >> 12 not in self.readonly

    def is_aliased(self, gpa: int) -> bool:
        return gpa >> 12 in self.aliased

    def read(self, hpa: int, size: int) -> int:
        return int.from_bytes(self.bytes[hpa - HOST : hpa - HOST + size], "little")


class World:
    """Two vCPUs on one 4-level tree: CR3 0x1000, then 0x2000, 0x3000, 0x4000; GVA maps gpa 0x9000."""

    def __init__(self, strict: bool = False, cr4: int = CR4, efer: int = EFER, cr0: int = CR0) -> None:
        self.memory = Memory()
        self.oracle = Oracle(self.memory, [GVA, GVA + 0x1000], 2, Features(), strict=strict)
        for gpa, entry in ((0x1000, 0x2000 | TABLE), (0x2008, 0x3000 | TABLE), (0x3008, 0x4000 | TABLE), (0x4008, 0x9000 | PAGE)):
            self.poke(gpa, entry)
        for tlb in self.oracle.vcpus:
            tlb.load(cr0, 0x1000, cr4, efer)

    @property
    def cpu(self) -> VirtualTlb:
        return self.oracle.vcpus[0]

    def poke(self, gpa: int, entry: int, size: int = 8) -> None:
        self.memory.bytes[gpa : gpa + size] = entry.to_bytes(size, "little")
        self.oracle.stored(HOST + gpa, size)

    def use(self, gpa: int, access: int = 0, ac: bool = False, vcpu: int = 0) -> None:
        self.oracle.vcpus[vcpu].completed(GVA, access, ac, HOST + gpa)

    def fault(self, access: int, code: int, address: int = GVA, vector: int = 14) -> None:
        self.cpu.before_walk(GVA, access, False)
        self.cpu.after_walk("INJECT", None, (vector, code, address))


def test_i12_the_present_translation_is_allowed_and_no_other() -> None:
    world = World()
    for access in (0, WRITE, USER, USER | WRITE, FETCH, USER | FETCH):
        world.use(0x9000, access)
    with pytest.raises(
        Violation, match=r"vcpu 0: user write of 0x40201000 went to host 0x10000a000; the guest allowed only gpa 0x9000 wuxD- 4K"
    ):
        world.use(0xA000, USER | WRITE)


@pytest.mark.parametrize(
    ("entry", "access"),
    [
        (0x9000 | P | A | D | U, WRITE),
        (0x9000 | P | A | D | W, USER),
        (0x9000 | PAGE | NX, FETCH),
        (0x9000 | PAGE & ~D, WRITE),
        (0x9000 | PAGE & ~A, 0),
    ],
)
def test_rights_dirty_and_accessed_count(entry: int, access: int) -> None:
    world = World()
    world.poke(0x4008, entry)
    world.cpu.load(CR0, 0x1000, CR4, EFER, mov_cr3=True)
    with pytest.raises(Violation):
        world.use(0x9000, access)


def test_rights_are_those_of_the_whole_path() -> None:
    world = World()
    world.poke(0x2008, 0x3000 | P | W | A)
    world.cpu.load(CR0, 0x1000, CR4, EFER, mov_cr3=True)
    world.use(0x9000, WRITE)
    with pytest.raises(Violation, match="w-xD-"):
        world.use(0x9000, USER)


def test_i12_a_stale_translation_lives_until_invlpg() -> None:
    world = World()
    world.poke(0x4008, 0xA000 | PAGE)
    world.use(0x9000)
    world.use(0xA000)
    world.cpu.invlpg(GVA | 0x123)
    world.use(0xA000)
    with pytest.raises(Violation):
        world.use(0x9000)


@pytest.mark.parametrize("strict", [False, True])
def test_a_table_where_mmio_was_keeps_what_its_entries_were(strict: bool) -> None:
    """A memslot comes where the guest had stored to nothing, and its level-1 table lies there: 6.1 may not see the next store."""
    world = World(strict)
    world.poke(0x4008, 0x2F000 | PAGE)
    world.memory.absent.add(0x2F)
    world.cpu.before_walk(GVA, WRITE, False)
    world.cpu.after_walk("EMULATE", None, None)
    world.memory.absent.clear()
    world.oracle.memory_changed()
    world.poke(0x2F008, 0x9000 | PAGE)
    world.poke(0x3008, 0x2F000 | TABLE)
    world.cpu.invlpg(GVA)
    world.use(0x9000)
    world.poke(0x2F008, 0xA000 | PAGE)
    world.cpu.invlpg(GVA)
    world.use(0xA000)
    if strict:
        with pytest.raises(Violation):
            world.use(0x9000)
    else:
        world.use(0x9000)
    with pytest.raises(Violation):
        world.use(0xB000)


@pytest.mark.parametrize("aliased", [True, False])
@pytest.mark.parametrize("how", ["the guest", "the host"])
def test_a_store_by_another_gfn_of_a_table_goes_unseen(how: str, aliased: bool) -> None:
    """Linux protects tables by gfn. gpa 0x30000 has the frame of the table at 0x4000, and the guest or the VMM stores there into it."""
    world = World()
    world.memory.moved[0x30] = 4
    world.memory.aliased = {4, 0x30} if aliased else set()
    world.poke(0x4010, 0x30000 | PAGE)
    cpu, entry = world.cpu, HOST + 0x4008
    cpu.load(CR0, 0x1000, CR4, EFER, mov_cr3=True)
    if how == "the guest":
        cpu.completed(GVA + 0x1008, WRITE, False, entry)
    world.memory.bytes[0x4008:0x4010] = (0xA000 | PAGE).to_bytes(8, "little")
    (cpu if how == "the guest" else world.oracle).stored(entry, 8)
    cpu.load(CR0, 0x1000, CR4, EFER, mov_cr3=True)
    world.use(0xA000)
    if aliased:
        world.use(0x9000)
    else:
        with pytest.raises(Violation):
            world.use(0x9000)


def test_invalidation_is_of_one_vcpu() -> None:
    world = World()
    world.poke(0x4008, 0xA000 | PAGE)
    world.cpu.invlpg(GVA)
    world.use(0x9000, vcpu=1)


def test_invlpg_spares_other_addresses_but_not_their_large_page() -> None:
    world = World()
    world.poke(0x4010, 0xA000 | PAGE)
    world.poke(0x4010, 0xB000 | PAGE)
    world.cpu.invlpg(GVA)
    world.cpu.completed(GVA + 0x1000, 0, False, HOST + 0xA000)
    world.poke(0x3008, 0 | PAGE | PS)
    world.poke(0x3008, 0x4000 | TABLE)
    world.cpu.invlpg(GVA)
    world.cpu.completed(GVA + 0x1000, 0, False, HOST + 0xA000)
    with pytest.raises(Violation):
        world.cpu.completed(GVA + 0x1000, 0, False, HOST + 0x2000)


def test_stale_tables_are_walked_until_invalidated() -> None:
    """A paging-structure cache still holds the old table, whose entries go on counting."""
    world = World()
    world.poke(0x3008, 0x5000 | TABLE)
    world.poke(0x4008, 0xB000 | PAGE)
    world.use(0xB000)
    world.cpu.load(CR0, 0x1000, CR4, EFER, mov_cr3=True)
    world.poke(0x4008, 0xC000 | PAGE)
    with pytest.raises(Violation):
        world.use(0xC000)


def test_cr3_load_keeps_global_pages_only() -> None:
    world = World(cr4=CR4 | hw.CR4_PGE)
    world.poke(0x4008, 0x9000 | PAGE | G)
    world.cpu.invlpg(GVA)
    world.poke(0x4008, 0xA000 | PAGE)
    world.cpu.load(CR0, 0x1000, CR4 | hw.CR4_PGE, EFER, mov_cr3=True)
    world.use(0x9000)
    world.poke(0x4008, 0xB000 | PAGE)
    world.cpu.load(CR0, 0x1000, CR4 | hw.CR4_PGE, EFER, mov_cr3=True)
    with pytest.raises(Violation):
        world.use(0xA000)
    world.cpu.load(CR0, 0x1000, CR4, EFER)
    with pytest.raises(Violation):
        world.use(0x9000)


@pytest.mark.parametrize("change", [{"cr4": CR4 | hw.CR4_SMEP}, {"cr4": CR4 | hw.CR4_PGE}, {"cr0": CR0 & ~hw.CR0_PG}])
def test_some_register_writes_drop_everything(change: dict[str, int]) -> None:
    world = World()
    world.poke(0x4008, 0xA000 | PAGE)
    registers = {"cr0": CR0, "cr3": 0x1000, "cr4": CR4, "efer": EFER}
    world.cpu.load(**{**registers, **change})
    with pytest.raises(Violation):
        world.use(0x9000)


def test_others_do_not() -> None:
    world = World()
    world.poke(0x4008, 0xA000 | PAGE)
    world.cpu.load(CR0 & ~hw.CR0_WP, 0x1000, CR4, EFER)
    world.cpu.load(CR0, 0x1000, CR4 | hw.CR4_SMAP, EFER)
    world.use(0x9000, USER)


def test_pcids_keep_their_translations() -> None:
    cr4 = CR4 | hw.CR4_PCIDE
    world = World(cr4=cr4)
    world.cpu.load(CR0, 0x1001 | 1 << 63, cr4, EFER, mov_cr3=True)
    world.poke(0x4008, 0xA000 | PAGE)
    world.cpu.load(CR0, 0x5002 | 1 << 63, cr4, EFER, mov_cr3=True)
    with pytest.raises(Violation):
        world.use(0xA000)
    world.cpu.load(CR0, 0x1001 | 1 << 63, cr4, EFER, mov_cr3=True)
    world.use(0x9000)
    world.cpu.load(CR0, 0x1001, cr4, EFER, mov_cr3=True)
    with pytest.raises(Violation):
        world.use(0x9000)


def test_a_switch_to_an_address_space_with_a_pcid_begins_its_translations() -> None:
    """What is walked after a #VMEXIT belongs to the PCID that L1 has then, and loading its CR3 anew may keep it."""
    cr4 = CR4 | hw.CR4_PCIDE
    world = World(cr4=cr4)
    world.cpu.load(CR0, 0x1001, cr4, EFER, mov_cr3=True)
    world.cpu.flush()
    world.poke(0x4008, 0xA000 | PAGE)
    world.cpu.load(CR0, 0x1001 | 1 << 63, cr4, EFER, mov_cr3=True)
    world.use(0x9000)
    world.cpu.load(CR0, 0x1002 | 1 << 63, cr4, EFER, mov_cr3=True)
    with pytest.raises(Violation):
        world.use(0x9000)


def test_smap_and_smep_and_wp_are_judged_at_the_time_of_access() -> None:
    world = World(cr4=CR4 | hw.CR4_SMAP | hw.CR4_SMEP)
    world.use(0x9000, 0, ac=True)
    world.use(0x9000, USER)
    for access, ac in ((0, False), (FETCH, True)):
        with pytest.raises(Violation):
            world.use(0x9000, access, ac)
    world.poke(0x4008, 0x9000 | PAGE & ~W)
    world.cpu.invlpg(GVA)
    with pytest.raises(Violation):
        world.use(0x9000, WRITE, ac=True)
    world.cpu.load(CR0 & ~hw.CR0_WP, 0x1000, CR4, EFER)
    world.use(0x9000, WRITE)


def test_the_supervisor_page_of_linux_is_a_known_difference() -> None:
    for strict in (False, True):
        world = World(strict, cr4=CR4 | hw.CR4_SMAP, cr0=hw.CR0_PG)
        world.poke(0x4008, 0x9000 | PAGE & ~W)
        world.cpu.invlpg(GVA)
        if strict:
            with pytest.raises(Violation):
                world.use(0x9000, WRITE)
        else:
            world.use(0x9000, WRITE)


def test_memslots_decide_which_host_memory_it_is() -> None:
    world = World()
    world.memory.moved[9] = 0x20
    world.oracle.memory_changed()
    world.use(0x20000)
    with pytest.raises(Violation, match=r"host 0x100020000"):
        world.use(0x9000)
    world.memory.absent.add(9)
    world.oracle.memory_changed()
    with pytest.raises(Violation, match="host none"):
        world.use(0x20000)


def test_read_only_slots() -> None:
    """No store there; and tables there count as accessed and dirty, because those bits cannot be set."""
    world = World()
    world.memory.readonly.add(9)
    world.use(0x9000)
    with pytest.raises(Violation):
        world.use(0x9000, WRITE)
    world.memory.readonly = {4}
    world.poke(0x4008, 0x9000 | P | W | U)
    world.oracle.memory_changed()
    world.use(0x9000, WRITE)


def test_without_paging_only_identity() -> None:
    world = World()
    world.cpu.load(0, 0x1000, CR4 | hw.CR4_SMAP, EFER)
    world.cpu.completed(0x9000, USER | WRITE, False, HOST + 0x9000)
    with pytest.raises(Violation, match="gpa 0x9000"):
        world.cpu.completed(0x9000, 0, False, HOST + 0xA000)


def test_exact_faults() -> None:
    world = World()
    world.poke(0x4008, 0x9000 | P | A)
    world.fault(USER, P | USER)
    world.fault(WRITE, P | WRITE)
    world.poke(0x4008, 0x9000 | PAGE | 1 << 45)
    world.fault(FETCH, P | 8 | FETCH)
    world.poke(0x4008, 0)
    world.fault(USER | FETCH, USER | FETCH)


@pytest.mark.parametrize(
    ("code", "address", "vector"), [(P | USER, GVA, 14), (USER, GVA + 1, 14), (USER, GVA, 13), (USER | WRITE, GVA, 14)]
)
def test_wrong_faults(code: int, address: int, vector: int) -> None:
    world = World()
    world.poke(0x4008, 0)
    with pytest.raises(Violation, match="a bare CPU gives #PF code 0x4"):
        world.fault(USER, code, address, vector)


def test_a_needless_fault() -> None:
    with pytest.raises(Violation, match="a bare CPU gives gpa 0x9000 wuxD- 4K"):
        World().fault(USER, P | USER)


def test_a_fault_drops_its_address() -> None:
    world = World()
    world.poke(0x4008, 0xA000 | P | A | D)
    world.use(0x9000, USER)
    world.fault(USER, P | USER)
    with pytest.raises(Violation):
        world.use(0x9000)


def test_fetch_bit_of_two_level_guests_is_a_known_difference() -> None:
    for strict in (False, True):
        world = World(strict, cr4=hw.CR4_PSE, efer=hw.EFER_NXE)
        world.poke(0x1400, 0, 4)
        world.fault(FETCH, 0)
        if strict:
            with pytest.raises(Violation):
                world.fault(FETCH, FETCH)
        else:
            world.fault(FETCH, FETCH)


def walked(world: World, access: int, outcome: str, marks: dict[int, int]) -> None:
    """The engine walks for an access and leaves these entries behind."""
    world.cpu.before_walk(GVA, access, False)
    for gpa, entry in marks.items():
        world.memory.bytes[gpa : gpa + 8] = entry.to_bytes(8, "little")
    world.cpu.after_walk(outcome, None, None)


def test_accessed_and_dirty_bits_after_a_walk() -> None:
    clean = {0x3008: 0x4000 | TABLE & ~A, 0x4008: 0x9000 | P | W | U}

    def world() -> World:
        made = World()
        for gpa, entry in clean.items():
            made.poke(gpa, entry)
        return made

    marked = {0x3008: 0x4000 | TABLE, 0x4008: 0x9000 | PAGE}
    right = world()
    walked(right, WRITE, "FIXED", marked)
    right.use(0x9000, WRITE)  # what the engine marked counts
    for access, marks in ((WRITE, {}), (WRITE, {0x3008: marked[0x3008]}), (0, marked), (WRITE, {**marked, 0x4008: 0x9000 | PAGE | G})):
        with pytest.raises(Violation, match="left guest entry"):
            walked(world(), access, "FIXED", marks)
    walked(world(), WRITE, "RETRY", {})
    with pytest.raises(Violation, match="left guest entry"):
        walked(world(), WRITE, "RETRY", {0x4008: 0x9000 | P | W})


def test_nothing_is_marked_by_a_fault() -> None:
    world = World()
    world.poke(0x4008, 0x9000 | P)
    world.cpu.before_walk(GVA, USER, False)
    world.memory.bytes[0x4008:0x4010] = (0x9000 | P | A).to_bytes(8, "little")
    with pytest.raises(Violation, match="left guest entry"):
        world.cpu.after_walk("INJECT", None, (14, P | USER, GVA))


def test_translations_for_the_emulator() -> None:
    world = World()
    world.cpu.before_walk(GVA | 0x10, 0, False)
    world.cpu.after_walk("TRANSLATED", 0x9010, None)
    world.cpu.before_walk(GVA | 0x10, 0, False)
    with pytest.raises(Violation, match="translated to gpa 0x8010"):
        world.cpu.after_walk("TRANSLATED", 0x8010, None)
    world.poke(0x4008, 0)
    world.cpu.before_walk(GVA, 0, False)
    with pytest.raises(Violation, match="#PF code 0x0"):
        world.cpu.after_walk("TRANSLATED", 0x9000, None)


def test_pdptes_are_registers() -> None:
    world = World()
    world.poke(0x6008, 0x3000 | P)
    world.cpu.load(0, 0x6000, CR4, hw.EFER_NXE)
    world.cpu.load(CR0, 0x6000, CR4, hw.EFER_NXE)
    world.use(0x9000)
    world.poke(0x6008, 0)
    world.cpu.invlpg(GVA)
    world.use(0x9000)
    world.cpu.load(CR0, 0x6000, CR4, hw.EFER_NXE, mov_cr3=True)
    with pytest.raises(Violation):
        world.use(0x9000)
    world.fault(0, 0)


def test_reserved_pdptes_refuse_the_load() -> None:
    world = World()
    world.cpu.load(0, 0x6000, CR4, hw.EFER_NXE)
    world.cpu.load(CR0, 0x6000, CR4, hw.EFER_NXE)
    world.poke(0x6010, 0x3000 | P | W)
    with pytest.raises(Violation, match="accepted"):
        world.cpu.load(CR0, 0x6000, CR4, hw.EFER_NXE, mov_cr3=True)
    world.cpu.load(CR0, 0x6000, CR4, hw.EFER_NXE, mov_cr3=True, accepted=False)
    world.poke(0x6010, 0x3000 | W)
    with pytest.raises(Violation, match="refused"):
        world.cpu.load(CR0, 0x6000, CR4, hw.EFER_NXE, mov_cr3=True, accepted=False)


def test_loads_of_memory_need_no_emulator_without_paging() -> None:
    world = World()
    world.cpu.load(0, 0x1000, CR4, EFER)
    world.cpu.before_walk(0x9000, 0, False)
    with pytest.raises(Violation, match="is to be emulated, but it is memory"):
        world.cpu.after_walk("EMULATE", None, None)
    world.cpu.before_walk(0x80000, 0, False)
    world.cpu.after_walk("EMULATE", None, None)


def test_entries_read_by_another_mode_are_a_known_difference() -> None:
    """Bit 63 after EFER.NXE is cleared: a bare CPU faults, Linux's shadow page may go on mapping it without X."""
    for strict in (False, True):
        world = World(strict)
        world.poke(0x4008, 0x9000 | PAGE | NX)
        world.cpu.load(CR0, 0x1000, CR4, hw.EFER_LME)
        world.cpu.load(CR0, 0x1000, CR4, hw.EFER_LME, mov_cr3=True)
        if strict:
            with pytest.raises(Violation):
                world.use(0x9000)
        else:
            world.use(0x9000)
        with pytest.raises(Violation):
            world.use(0x9000, FETCH)


def test_stores_are_noted_as_dirty_and_as_edits() -> None:
    world = World()
    edits = world.oracle.edits
    world.cpu.emulated_store(0x9000, 8)
    assert world.oracle.edits == edits and (HOST + 0x9000) >> 12 in world.oracle.dirty
    world.cpu.emulated_store(0x4008, 8)
    assert world.oracle.edits == edits + 2
    world.cpu.emulated_store(0x80000, 8)
