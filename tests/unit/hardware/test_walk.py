# SPDX-License-Identifier: GPL-2.0-only
"""The page walk against known answers from the manuals, and against a second, naive statement of the same rules."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.second_level import Ept, Npt, SecondLevelFault, walk_two_dimensions
from shadowmmu.hardware.walk import ALL, DIRTY, EXEC, FETCH, PRESENT, RESERVED, USER, WRITE, Features, Paging, Translation, paging, walk

PG, WP = hw.CR0_PG, hw.CR0_WP
NX = hw.NX
P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80


class Memory:
    """Physical memory as a dict of aligned little-endian 4-byte words; what was never written is not there."""

    def __init__(self, entries: dict[int, int] | None = None, size: int = 8) -> None:
        self.words: dict[int, int] = {}
        for pa, value in (entries or {}).items():
            self.write(pa, size, value)

    def read(self, pa: int, size: int) -> int | None:
        if pa not in self.words:
            return None
        return self.words[pa] if size == 4 else self.words[pa] | self.words.get(pa + 4, 0) << 32

    def write(self, pa: int, size: int, value: int) -> None:
        self.words[pa] = value & 0xFFFFFFFF
        if size == 8:
            self.words[pa + 4] = value >> 32


def mode(levels: int, *, cr0: int = WP, cr4: int = 0, efer: int = hw.EFER_NXE, features: Features = Features()) -> Paging:
    cr4 |= {0: 0, 2: hw.CR4_PSE, 3: hw.CR4_PAE, 4: hw.CR4_PAE, 5: hw.CR4_PAE | hw.CR4_LA57}[levels]
    return paging(cr0 | (PG if levels else 0), cr4, efer | (hw.EFER_LME if levels > 3 else 0), features)


def chain(levels: int, gva: int, leaf: int, flags: int = P | W | U | A) -> Memory:
    """Tables at 0x1000, 0x2000, ... from CR3 = 0x1000 down to `leaf` at level 1."""
    m, memory = mode(levels), Memory()
    table = 0x1000
    if levels == 3:
        memory.write(table + (gva >> 30 & 3) * 8, 8, 0x2000 | P)
        table = 0x2000
    for step in m.steps:
        pa = table + (gva >> step.shift & step.mask) * m.entry_size
        memory.write(pa, m.entry_size, leaf if step.level == 1 else table + 0x1000 | flags)
        table += 0x1000
    return memory


@pytest.mark.parametrize(
    ("cr0", "cr4", "efer", "levels"),
    [
        (0, hw.CR4_PAE, hw.EFER_LME, 0),
        (PG, 0, 0, 2),
        (PG, hw.CR4_PAE, 0, 3),
        (PG, hw.CR4_PAE | hw.CR4_LA57, 0, 3),
        (PG, hw.CR4_PAE, hw.EFER_LME, 4),
        (PG, hw.CR4_PAE | hw.CR4_LA57, hw.EFER_LME, 5),
    ],
)
def test_paging_mode(cr0: int, cr4: int, efer: int, levels: int) -> None:
    """SDM 4.1.1, table 4-1."""
    assert paging(cr0, cr4, efer).levels == levels


def test_without_paging_addresses_are_physical() -> None:
    assert walk(mode(0), Memory().read, 0, 0x12345678, WRITE | USER) == Translation(0x12345000, 12, ALL | DIRTY)


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_small_page(levels: int) -> None:
    gva = {2: 0xC0401234, 3: 0xC0401234, 4: 0xFFFF812345678234, 5: 0xFF12345678901234}[levels]
    memory = chain(levels, gva, 0x7F000 | P | W | U | A)
    result = walk(mode(levels), memory.read, 0x1000, gva, USER)
    assert result == Translation(0x7F000, 12, ALL)
    assert isinstance(result, Translation) and result.address(gva) == 0x7F234


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("access", [0, WRITE, USER, USER | WRITE, FETCH, USER | FETCH])
def test_absent_at_every_level(levels: int, access: int) -> None:
    """P=0 whatever the level; W, U and I/D describe the access (SDM 4.7)."""
    gva = 0x40201000
    full = chain(levels, gva, 0x7F000 | P | W | U)
    for pa in [pa for pa, word in full.words.items() if word & P]:
        memory = Memory()
        memory.words = {**full.words, pa: full.words[pa] & ~P}
        code = access if levels > 2 else access & ~FETCH
        assert walk(mode(levels), memory.read, 0x1000, gva, access) == code
        memory.words = {at: word for at, word in full.words.items() if at != pa}
        assert walk(mode(levels), memory.read, 0x1000, gva, access) == code


def test_fetch_is_reported_only_with_nx_or_smep() -> None:
    """SDM 4.7: I/D needs CR4.SMEP, or CR4.PAE with EFER.NXE."""
    for levels, cr4, efer, reported in [(3, 0, 0, 0), (3, 0, hw.EFER_NXE, FETCH), (2, 0, hw.EFER_NXE, 0), (2, hw.CR4_SMEP, 0, FETCH)]:
        assert walk(mode(levels, cr4=cr4, efer=efer), Memory().read, 0x1000, 0, FETCH) == reported


def naive_rights(w: bool, u: bool, x: bool, access: int, wp: bool, smep: bool, smap: bool, ac: bool) -> bool:
    """SDM 4.6.1, sentence by sentence."""
    user, write, fetch = bool(access & USER), bool(access & WRITE), bool(access & FETCH)
    if not user:
        if fetch:
            if u and smep:
                return False
            return x
        if not write:
            return not u or not smap or ac
        if not u:
            return w or not wp
        if smap and not ac:
            return False
        return w or not wp
    if not u:
        return False
    return x if fetch else w or not write


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_rights_in_full(levels: int) -> None:
    """Every combination of entry rights, control bits and access."""
    gva = 0x40201000
    for w, u, x, wp, smep, smap, ac in product((False, True), repeat=7):
        m = mode(levels, cr0=WP if wp else 0, cr4=hw.CR4_SMEP * smep | hw.CR4_SMAP * smap)
        memory = chain(levels, gva, 0x7F000 | P | W * w | U * u | (0 if x else NX))
        for access in (0, WRITE, USER, USER | WRITE, FETCH, USER | FETCH):
            result = walk(m, memory.read, 0x1000, gva, access, ac)
            allowed = naive_rights(w, u, x, access, wp, smep, smap, ac)
            assert isinstance(result, Translation) == allowed, (w, u, x, wp, smep, smap, ac, access)
            if not allowed:
                assert result == access | PRESENT


@pytest.mark.parametrize("bit", [W, U, NX])
def test_any_level_can_withhold_a_right(bit: int) -> None:
    gva = 0x40201000
    full = chain(4, gva, 0x7F000 | P | W | U)
    access = {W: USER | WRITE, U: USER, NX: USER | FETCH}[bit]
    assert isinstance(walk(mode(4), full.read, 0x1000, gva, access), Translation)
    for pa in [pa for pa, word in full.words.items() if word & P]:
        memory = Memory()
        memory.words = dict(full.words)
        memory.write(pa, 8, (memory.read(pa, 8) or 0) ^ bit)
        assert walk(mode(4), memory.read, 0x1000, gva, access) == access | PRESENT


RESERVED_BITS = [
    # levels, level, a leaf, reserved bits (MAXPHYADDR 40, NXE on, AMD), ignored or used ones
    (2, 2, False, [], [1 << 9, 1 << 8]),
    (2, 2, True, [1 << 17, 1 << 21], [1 << 13, 1 << 16, 1 << 12]),
    (3, 2, False, [1 << 40, 1 << 52, 1 << 62], [1 << 8, 1 << 11, NX]),
    (3, 2, True, [1 << 13, 1 << 20, 1 << 40, 1 << 62], [1 << 12, NX]),
    (3, 1, True, [1 << 40, 1 << 52, 1 << 62], [1 << 7, NX]),
    (4, 4, False, [1 << 7, 1 << 8, 1 << 40, 1 << 51], [1 << 52, 1 << 62, 1 << 9]),
    (4, 3, False, [1 << 40, 1 << 51], [1 << 52, 1 << 8]),
    (4, 3, True, [1 << 13, 1 << 29, 1 << 51], [1 << 52, 1 << 12]),
    (4, 2, True, [1 << 13, 1 << 20, 1 << 51], [1 << 52, 1 << 12]),
    (4, 1, True, [1 << 40, 1 << 51], [1 << 52, 1 << 62, 1 << 7]),
    (5, 5, False, [1 << 7, 1 << 8, 1 << 40], [1 << 52]),
]


@pytest.mark.parametrize(("levels", "level", "leaf", "reserved", "free"), RESERVED_BITS)
def test_reserved_bits(levels: int, level: int, leaf: bool, reserved: list[int], free: list[int]) -> None:
    """SDM figures 4-4, 4-7, 4-11 and tables beside them; APM 5.3 for bit 8."""
    gva = 0
    m = mode(levels)
    index = next(i for i, s in enumerate(m.steps) if s.level == level)
    pa = 0x1000 * (index + 1 + (levels == 3))
    for bit in reserved + free:
        memory = chain(levels, gva, 0x7F000 | P | W | U)
        entry = memory.read(pa, m.entry_size) or 0
        if leaf and level > 1:
            entry = 0x40000000 | P | W | U | PS
        memory.write(pa, m.entry_size, entry | bit)
        result = walk(m, memory.read, 0x1000, gva, 0)
        assert (result == PRESENT | RESERVED) == (bit in reserved), hex(bit)


def test_nx_is_reserved_without_nxe() -> None:
    memory = chain(4, 0, 0x7F000 | P | NX)
    assert walk(mode(4, efer=0), memory.read, 0x1000, 0, 0) == PRESENT | RESERVED
    assert isinstance(walk(mode(4), memory.read, 0x1000, 0, 0), Translation)


def test_intel_ignores_bit_8_of_a_pml4e() -> None:
    memory = chain(4, 0, 0x7F000 | P, flags=P | 0x100)
    assert walk(mode(4), memory.read, 0x1000, 0, 0) == PRESENT | RESERVED
    assert isinstance(walk(mode(4, features=Features(amd=False)), memory.read, 0x1000, 0, 0), Translation)


@pytest.mark.parametrize(
    ("levels", "level", "entry", "gva", "pa", "shift"),
    [
        (2, 2, 0x00C00000 | 0x1E000, 0x0012345, 0xF00C12345, 22),  # PSE-36: bits 13-16 are bits 32-35
        (3, 2, 0x00C00000 | 0x1000, 0x0012345, 0xC12345, 21),  # bit 12 is PAT
        (4, 2, 0x8000600000, 0x1F2345, 0x80007F2345, 21),
        (4, 3, 0x40000000, 0x3FFFFFFF, 0x7FFFFFFF, 30),
    ],
)
def test_large_pages(levels: int, level: int, entry: int, gva: int, pa: int, shift: int) -> None:
    m = mode(levels)
    memory = chain(levels, 0, 0)
    index = next(i for i, s in enumerate(m.steps) if s.level == level)
    memory.write(0x1000 * (index + 1 + (levels == 3)), m.entry_size, entry | P | W | PS)
    result = walk(m, memory.read, 0x1000, gva, WRITE)
    assert isinstance(result, Translation)
    assert (result.address(gva), result.shift) == (pa, shift)


def test_bit_7_without_pse_is_ignored() -> None:
    memory = chain(2, 0, 0x7F000 | P)
    memory.write(0x1000, 4, 0x2000 | P | PS)
    assert walk(paging(PG, 0, 0), memory.read, 0x1000, 0) == Translation(0x7F000, 12, EXEC)


def test_one_gigabyte_pages_can_be_absent() -> None:
    memory = chain(4, 0, 0)
    memory.write(0x2000, 8, 0x40000000 | P | PS)
    assert walk(mode(4, features=Features(pages_1g=False)), memory.read, 0x1000, 0) == PRESENT | RESERVED


def test_pdpte_registers_hide_memory() -> None:
    """SDM 4.4.1: what MOV CR3 loaded counts; AMD's guests read memory at use (APM 15.25.10)."""
    memory = chain(3, 0, 0x7F000 | P)
    assert walk(mode(3), memory.read, 0x1000, 0, pdptes=(0, 0, 0, 0)) == 0
    assert isinstance(walk(mode(3), memory.read, 0x1000, 0), Translation)
    for bit in (W, U, A, D, PS, 0x100, 1 << 40, NX):
        memory.write(0x1000, 8, 0x2000 | P | bit)
        assert walk(mode(3), memory.read, 0x1000, 0) == PRESENT | RESERVED
    memory.write(0x1000, 8, 0x2000 | P | 0xE18)
    assert isinstance(walk(mode(3), memory.read, 0x1000, 0), Translation)


def test_pae_directory_pointers_are_32_byte_aligned() -> None:
    memory = chain(3, 0, 0x7F000 | P)
    memory.words.update({0x1FE0: 0x2001, 0x1FE4: 0})
    assert isinstance(walk(mode(3), memory.read, 0x1FE0, 0), Translation)


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_accessed_and_dirty(levels: int) -> None:
    """SDM 4.8: A everywhere but in PDPTEs, D only in the leaf of a write, nothing after a fault."""
    m, gva = mode(levels), 0x40201000

    def flags(memory: Memory) -> list[int]:
        entries = [memory.read(pa, 4) or 0 for pa in sorted(memory.words) if (memory.words[pa] & P and pa % m.entry_size == 0)]
        return [e & (A | D) for e in entries[levels == 3 :]]

    memory = chain(levels, gva, 0x7F000 | P | U, flags=P | W | U)
    untouched = dict(memory.words)
    assert walk(m, memory.read, 0x1000, gva, WRITE, write=memory.write) == PRESENT | WRITE
    assert walk(m, memory.read, 0x1000, gva) == Translation(0x7F000, 12, USER | EXEC)
    assert memory.words == untouched
    walk(m, memory.read, 0x1000, gva, USER, write=memory.write)
    assert flags(memory) == [A] * len(m.steps)
    memory = chain(levels, gva, 0x7F000 | P | U | W, flags=P | W | U)
    result = walk(m, memory.read, 0x1000, gva, USER | WRITE, write=memory.write)
    assert isinstance(result, Translation) and result.rights & DIRTY
    assert flags(memory) == [A] * (len(m.steps) - 1) + [A | D]


def test_entry_changed_under_the_walk_is_walked_again() -> None:
    """Compare-and-exchange: another CPU takes the right away between read and marking."""
    memory = chain(4, 0, 0x7F000 | P | W, flags=P | W)
    reads = 0

    def read(pa: int, size: int) -> int | None:
        nonlocal reads
        reads += 1
        if reads == 5:
            memory.write(0x4000, 8, 0x7F000 | P)
        return memory.read(pa, size)

    assert walk(mode(4), read, 0x1000, 0, WRITE, write=memory.write) == PRESENT | WRITE
    assert memory.read(0x4000, 8) == 0x7F000 | P


def test_self_map_sets_both_bits_in_one_entry() -> None:
    memory = Memory({0x1000: 0x1000 | P | W})
    result = walk(mode(4), memory.read, 0x1000, 0, WRITE, write=memory.write)
    assert result == Translation(0x1000, 12, WRITE | EXEC | DIRTY)
    assert memory.read(0x1000, 8) == 0x1000 | P | W | A | D


def test_global_counts_only_with_pge() -> None:
    memory = chain(4, 0, 0x7F000 | P | hw.GLOBAL)
    assert walk(mode(4), memory.read, 0x1000, 0) == Translation(0x7F000, 12, EXEC)
    assert walk(mode(4, cr4=hw.CR4_PGE), memory.read, 0x1000, 0) == Translation(0x7F000, 12, EXEC | hw.GLOBAL)


@pytest.mark.parametrize("access", [0, WRITE, USER, USER | WRITE, FETCH])
@pytest.mark.parametrize("pkru_bits", [0, 1, 2, 3])
@pytest.mark.parametrize("wp", [0, WP])
def test_protection_keys(access: int, pkru_bits: int, wp: int) -> None:
    """SDM 4.6.2: AD stops data accesses to user pages, WD writes by users or under WP; never fetches."""
    memory = chain(4, 0, 0x7F000 | P | W | U | 5 << 59)
    result = walk(mode(4, cr0=wp, cr4=hw.CR4_PKE), memory.read, 0x1000, 0, access, pkru=pkru_bits << 10)
    denied = not access & FETCH and (pkru_bits & 1 or (pkru_bits & 2 and access & WRITE and (access & USER or wp)))
    assert result == PRESENT | hw.KEY | access if denied else isinstance(result, Translation)
    assert isinstance(walk(mode(4, cr0=wp, cr4=hw.CR4_PKE), memory.read, 0x1000, 0, access, pkru=~(3 << 10)), Translation)


def naive_walk(cr0: int, cr4: int, efer: int, memory: Memory, cr3: int, gva: int, access: int) -> tuple[int, int] | int:
    """A second statement, by mode, MAXPHYADDR 40, 1 GB pages, AMD: (address, page size) or error code."""
    code = access & (WRITE | USER)
    nxe = bool(efer & hw.EFER_NXE) and bool(cr4 & hw.CR4_PAE)
    if access & FETCH and (nxe or cr4 & hw.CR4_SMEP):
        code |= FETCH
    if not cr4 & hw.CR4_PAE:
        levels: list[tuple[int, int]] = [(22, 1023), (12, 1023)]
    elif not efer & hw.EFER_LME:
        levels = [(30, 3), (21, 511), (12, 511)]
    else:
        levels = [(48, 511)] * bool(cr4 & hw.CR4_LA57) + [(39, 511), (30, 511), (21, 511), (12, 511)]
    size = 8 if cr4 & hw.CR4_PAE else 4
    table, w, u, x = cr3 & 0xFFFFFFFFFF000, True, True, True
    for shift, mask in levels:
        e = memory.read(table + (gva >> shift & mask) * size, size) or 0
        if not e & 1:
            return code
        if shift == 30 and mask == 3:
            if e & 0xFFFFFF00000001E6:
                return code | 9
            table = e & 0xFFFFFFF000
            continue
        large = bool(e >> 7 & 1) and shift in ((22,) if size == 4 else (30, 21) if efer & hw.EFER_LME else (21,))
        large = large and (size == 8 or bool(cr4 & hw.CR4_PSE))
        bad = 0
        if size == 8:
            bad = 0x000FFF0000000000 | (0 if nxe else 1 << 63) | (0 if efer & hw.EFER_LME else 0x7FF0000000000000)
            bad |= 0x180 if shift >= 39 else 0
            bad |= {30: 0x3FFFE000, 21: 0x1FE000}.get(shift, 0) if large else 0
        elif large:
            bad = 0x3E0000
        if e & bad:
            return code | 9
        w, u, x = w and bool(e & 2), u and bool(e & 4), x and not (nxe and e >> 63)
        if large or shift == 12:
            if not naive_rights(w, u, x, access, bool(cr0 & WP), bool(cr4 & hw.CR4_SMEP), bool(cr4 & hw.CR4_SMAP), False):
                return code | 1
            base = e & 0xFFFFFFFFFF000 & ~((1 << shift) - 1)
            if shift == 22:
                base |= (e >> 13 & 15) << 32
            return base | gva & ((1 << shift) - 1), 1 << shift
        table = e & 0xFFFFFFF000 if size == 8 else e & 0xFFFFF000
    raise AssertionError


ENTRIES = st.builds(
    lambda frame, low, high, odd: frame << 12 | low | high << 63 | odd,
    st.integers(1, 4),
    st.integers(0, 0xFFF).map(lambda v: v | 1 if v & 0x600 else v),
    st.integers(0, 7).map(lambda v: v == 0),
    st.sampled_from([0] * 12 + [1 << b for b in (7, 8, 13, 17, 20, 21, 29, 30, 39, 40, 51, 52, 62)]),
)


@settings(max_examples=1500)
@given(
    st.sampled_from([(0, 0), (hw.CR4_PAE, 0), (hw.CR4_PAE, hw.EFER_LME), (hw.CR4_PAE | hw.CR4_LA57, hw.EFER_LME)]),
    st.sampled_from([0, WP]),
    st.sets(st.sampled_from([hw.CR4_PSE, hw.CR4_SMEP, hw.CR4_SMAP])),
    st.booleans(),
    st.lists(ENTRIES, min_size=16, max_size=16),
    st.sampled_from([0, WRITE, USER, USER | WRITE, FETCH, USER | FETCH]),
    st.lists(st.integers(0, 1), min_size=5, max_size=5),
)
def test_against_the_naive_walk(base, cr0, extra, nxe, entries, access, indices) -> None:  # type: ignore[no-untyped-def]
    """Random entries in four tables of two entries each, in all modes."""
    cr4, efer = base[0] | sum(extra), base[1] | (hw.EFER_NXE if nxe else 0)
    memory = Memory()
    size = 8 if cr4 & hw.CR4_PAE else 4
    for i, entry in enumerate(entries[:8]):
        memory.write(0x1000 * (1 + i // 2) + i % 2 * size, size, entry)
    if cr4 & hw.CR4_PAE and not efer:
        for i in range(2):
            memory.write(0x1000 + i * 8, 8, entries[8 + i] & ~0x1E6 | 1)
    shifts = (22, 12) if size == 4 else (12, 21, 30, 39, 48)
    gva = sum(i << s for i, s in zip(indices, shifts, strict=False)) + 0x123
    if base[1] == 0:
        gva &= 0xFFFFFFFF
    result = walk(paging(cr0 | PG, cr4, efer), memory.read, 0x1000, gva, access)
    expected = naive_walk(cr0, cr4, efer, memory, 0x1000, gva, access)
    if isinstance(result, Translation):
        assert (result.address(gva), 1 << result.shift) == expected
    else:
        assert result == expected


# --- the second level


def ept_memory(leaf: int, level: int = 1) -> Memory:
    memory = Memory()
    for at in range(4, level - 1, -1):
        memory.write(0x1000 * (5 - at), 8, leaf if at == level else 0x1000 * (6 - at) | 7)
    return memory


def ept(memory: Memory, ad: bool = False, exec_only: bool = True) -> Ept:
    return Ept(memory.read, memory.write, 0x1000 | 3 << 3 | (0x40 if ad else 0) | 6, exec_only=exec_only)


@pytest.mark.parametrize("rights", [1, 3, 4, 5, 7])
@pytest.mark.parametrize(("access", "need"), [(0, 1), (WRITE, 2), (FETCH, 4)])
def test_ept_rights(rights: int, access: int, need: int) -> None:
    """SDM table 28-7: bits 0-2 the access, 3-5 what the entries allow, 7 and 8 a final address."""
    tables = ept(ept_memory(0x7F000 | 6 << 3 | rights))
    if rights & need:
        assert tables.translate(0x234, access, False) == 0x7F234
    else:
        with pytest.raises(SecondLevelFault) as fault:
            tables.translate(0x234, access, False)
        assert (fault.value.gpa, fault.value.code) == (0x234, need | rights << 3 | 0x180)


@pytest.mark.parametrize("leaf", [2, 6, 7 | 2 << 3, 7 | 3 << 3, 7 | 7 << 3, 7 | 1 << 46, 7 | 1 << 51])
def test_ept_misconfiguration(leaf: int) -> None:
    with pytest.raises(SecondLevelFault) as fault:
        ept(ept_memory(0x7F000 | leaf)).translate(0, 0, False)
    assert fault.value.code == -1


def test_ept_execute_only_needs_support() -> None:
    memory = ept_memory(0x7F004)
    assert ept(memory).translate(0, FETCH, False) == 0x7F000
    with pytest.raises(SecondLevelFault) as fault:
        ept(memory, exec_only=False).translate(0, FETCH, False)
    assert fault.value.code == -1


def test_ept_large_pages_and_their_reserved_bits() -> None:
    assert ept(ept_memory(0x40000000 | PS | 7, level=3)).translate(0x3FFFFFFF, 0, False) == 0x7FFFFFFF
    assert ept(ept_memory(0x00600000 | PS | 7, level=2)).translate(0x1FFFFF, 0, False) == 0x7FFFFF
    for level, entry in ((2, 0x601000 | PS | 7), (3, 0x40001000 | PS | 7), (4, 0x2000 | PS | 7), (2, 0x4000 | 0x8 | 7)):
        with pytest.raises(SecondLevelFault) as fault:
            ept(ept_memory(entry, level=level)).translate(0, 0, False)
        assert fault.value.code == -1


def test_ept_accessed_and_dirty() -> None:
    """SDM 28.3.5: with A/D flags a guest table counts as written, even when it is only read."""
    memory = ept_memory(0x7F007)
    ept(memory).translate(0, WRITE, False)
    assert memory.read(0x4000, 8) == 0x7F007
    ept(memory, ad=True).translate(0, 0, False)
    assert memory.read(0x4000, 8) == 0x7F107 and memory.read(0x1000, 8) == 0x2107
    ept(memory, ad=True).translate(0, 0, True)
    assert memory.read(0x4000, 8) == 0x7F307
    memory = ept_memory(0x7F005)
    assert ept(memory).translate(0, 0, True) == 0x7F000
    with pytest.raises(SecondLevelFault) as fault:
        ept(memory, ad=True).translate(0, 0, True)
    assert fault.value.code == 3 | 5 << 3 | 0x80


def two_dimensional_memory(table_rights: int = 7, page_rights: int = 7) -> Memory:
    """A guest's 4-level tables at gpa 0x100000-0x103000, its page at gpa 0x105000; NPT maps gpa to host gpa + 0x200000."""
    memory = Memory()
    for i in range(3):
        memory.write(0x300000 + 0x1000 * i, 8, 0x101000 + 0x1000 * i | P | W | U)
    memory.write(0x303000, 8, 0x105000 | P | W | U)
    memory.write(0x1000, 8, 0x2000 | 7)
    memory.write(0x2000, 8, 0x3000 | 7)
    memory.write(0x3000, 8, 0x4000 | 7)
    for i in range(0x100, 0x106):
        memory.write(0x4000 + i * 8, 8, (0x200000 + i * 0x1000) | (page_rights if i == 0x105 else table_rights))
    return memory


def test_nested_walk() -> None:
    memory = two_dimensional_memory()
    npt = Npt(mode(4), memory.read, memory.write, 0x1000)
    result = walk_two_dimensions(mode(4), npt, 0x100000, 0x123, WRITE | USER)
    assert result == (Translation(0x105000, 12, ALL | DIRTY), 0x305123)
    assert memory.read(0x303000, 8) == 0x105000 | P | W | U | A | D
    assert (memory.read(0x4000 + 0x105 * 8, 8) or 0) & (A | D) == A | D


def test_nested_fault_on_a_guest_table_is_a_user_write() -> None:
    """APM 15.25.6: bit 33, and W because the walker may have to set A or D."""
    memory = two_dimensional_memory(table_rights=P | U)
    with pytest.raises(SecondLevelFault) as fault:
        walk_two_dimensions(mode(4), Npt(mode(4), memory.read, memory.write, 0x1000), 0x100000, 0x123)
    assert (fault.value.gpa, fault.value.code) == (0x100000, PRESENT | WRITE | USER | hw.GUEST_TABLE)


def test_nested_fault_on_the_final_address() -> None:
    memory = two_dimensional_memory(page_rights=P | U)
    npt = Npt(mode(4), memory.read, memory.write, 0x1000)
    with pytest.raises(SecondLevelFault) as fault:
        walk_two_dimensions(mode(4), npt, 0x100000, 0x123, WRITE)
    assert (fault.value.gpa, fault.value.code) == (0x105123, PRESENT | WRITE | USER | hw.GUEST_FINAL)
    assert isinstance(walk_two_dimensions(mode(4), npt, 0x100000, 0x123), tuple)
    memory = two_dimensional_memory(page_rights=P | W)
    with pytest.raises(SecondLevelFault):
        walk_two_dimensions(mode(4), Npt(mode(4), memory.read, memory.write, 0x1000), 0x100000, 0x123)


def test_nested_guest_fault_comes_before_the_second_level() -> None:
    memory = two_dimensional_memory()
    memory.write(0x303000, 8, 0)
    assert walk_two_dimensions(mode(4), Npt(mode(4), memory.read, memory.write, 0x1000), 0x100000, 0x123, USER) == USER
