# SPDX-License-Identifier: GPL-2.0-only
"""The TLB keeps what it may keep, and loses what it must lose (SDM 4.10.4.1)."""

from random import Random

from shadowmmu.hardware.tlb import Tlb
from shadowmmu.hardware.walk import ALL, DIRTY, GLOBAL, Functions, Translation, Walk, paging

MODE = paging(1 << 31, 0xA0, 0x100)  # 4 levels, global pages
GVA = 0x7F1234567000
ROOT, TABLE = 0x10000, 0x27  # tables stand behind each other; of each all entries lead to the next
SMALL = Translation(0x5000, 12, ALL | DIRTY)
LARGE = Translation(0x40000000, 21, ALL)


def walked(gva: int, page: Translation = SMALL) -> Walk:
    """A walk that ends in this page."""

    def read(pa: int, size: int) -> int:
        number = (pa - ROOT) >> 12
        if number < (2 if page.shift == 21 else 3):
            return ROOT + (number + 1 << 12) | TABLE
        return page.page | TABLE | page.rights & (DIRTY | GLOBAL) | (0x80 if page.shift == 21 else 0)

    way = Walk(Functions(read, None), marks=False)
    way.go(MODE, ROOT, gva, 0, False)
    return way


def fill(tlb: Tlb, tag: int, gva: int, page: Translation = SMALL) -> None:
    tlb.fill(tag, gva, MODE, walked(gva, page))


def filled(page: Translation = SMALL, tag: int = 1, gva: int = GVA) -> Tlb:
    tlb = Tlb()
    fill(tlb, tag, gva, page)
    return tlb


def left(tlb: Tlb, tag: int, gva: int) -> list[int]:
    """The tables that a walk still has to go through."""
    seen: list[int] = []

    def read(pa: int, size: int) -> int:
        seen.append(pa & ~0xFFF)
        return pa + 0x1000 & ~0xFFF | TABLE

    way = Walk(Functions(read, None), marks=False)
    resumed = tlb.resume(tag, gva, MODE, way)
    way.go(MODE, ROOT, gva, 0, False)
    assert resumed == (len(seen) < 4)
    return seen


def test_hit_by_page_and_tag() -> None:
    tlb = filled()
    assert tlb.page(1, GVA + 0xFFF) == SMALL
    assert tlb.page(1, GVA + 0x1000) is None
    assert tlb.page(2, GVA) is None


def test_global_pages_serve_every_tag_and_survive_a_cr3_load() -> None:
    tlb = filled(Translation(0x5000, 12, ALL | GLOBAL))
    tlb.load_cr3(1)
    assert tlb.page(2, GVA) is not None
    tlb.invlpg(2, GVA, MODE)
    assert tlb.page(1, GVA) is None


def test_cr3_load_drops_its_tag_only() -> None:
    tlb = filled()
    fill(tlb, 2, GVA)
    tlb.load_cr3(1)
    assert tlb.page(1, GVA) is None and len(left(tlb, 1, GVA)) == 4
    assert tlb.page(2, GVA) == SMALL and len(left(tlb, 2, GVA)) == 1


def test_walks_resume_at_the_lowest_cached_table() -> None:
    tlb = filled()
    tables = [ROOT, ROOT + 0x1000, ROOT + 0x2000, ROOT + 0x3000]
    assert left(tlb, 1, GVA) == tables[3:]
    assert left(tlb, 1, GVA ^ 0x200000) == tables[2:]
    assert left(tlb, 1, GVA ^ 1 << 30) == tables[1:]
    assert left(tlb, 1, GVA ^ 1 << 39) == tables


def test_invlpg_keeps_neighbours_and_their_tables() -> None:
    tlb = filled()
    fill(tlb, 1, GVA ^ 0x40000000)
    tlb.invlpg(1, GVA, MODE)
    assert tlb.page(1, GVA) is None and len(left(tlb, 1, GVA)) == 4
    assert tlb.page(1, GVA ^ 0x40000000) == SMALL
    assert left(tlb, 1, GVA ^ 0x40000000) == [ROOT + 0x3000]


def test_invlpg_anywhere_in_a_large_page_drops_it() -> None:
    tlb = filled(LARGE)
    assert tlb.page(1, GVA ^ 0x1FF000) == LARGE
    tlb.invlpg(1, GVA ^ 0x1FF000, MODE)
    assert tlb.page(1, GVA) is None


def test_small_and_large_entries_live_side_by_side() -> None:
    tlb = filled(LARGE)
    fill(tlb, 1, GVA)
    assert tlb.page(1, GVA) == SMALL
    assert tlb.page(1, GVA ^ 0x1000) == LARGE
    tlb.invlpg(1, GVA, MODE)
    assert tlb.page(1, GVA) is None


def test_flush_all() -> None:
    tlb = filled(Translation(0x5000, 12, ALL | GLOBAL))
    tlb.flush_all()
    assert tlb.page(1, GVA) is None and len(left(tlb, 1, GVA)) == 4


def test_eviction_is_seeded_and_only_forgets() -> None:
    def run(seed: int) -> list[list[bool]]:
        tlb, history = Tlb(Random(seed)), []
        for i in range(200):
            fill(tlb, i & 1, i << 12)
            history.append([tlb.page(j & 1, j << 12) is not None for j in range(i + 1)])
        return history

    assert run(1) == run(1) != run(2)
    assert not all(all(present) for present in run(1))
    assert all(not late or early for a, b in zip(run(1), run(1)[1:], strict=False) for early, late in zip(a, b, strict=False))
