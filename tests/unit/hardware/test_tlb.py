# SPDX-License-Identifier: GPL-2.0-only
"""The TLB keeps what it may keep, and loses what it must lose (SDM 4.10.4.1)."""

from random import Random

from shadowmmu.hardware.tlb import Tlb
from shadowmmu.hardware.walk import ALL, DIRTY, GLOBAL, TrailEntry, Translation, paging

MODE = paging(1 << 31, 0x20, 0x100)  # 4 levels
GVA = 0x7F1234567000
SMALL = Translation(0x5000, 12, ALL | DIRTY)
LARGE = Translation(0x40000000, 21, ALL)
TRAIL = [TrailEntry(i, 0, 0, 0x1000 * i, ALL) for i in range(4)]


def filled(page: Translation = SMALL, tag: int = 1, gva: int = GVA) -> Tlb:
    tlb = Tlb()
    tlb.fill(tag, gva, MODE, page, TRAIL[: 3 if page.shift == 21 else 4])
    return tlb


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
    tlb.fill(2, GVA, MODE, SMALL, TRAIL)
    tlb.load_cr3(1)
    assert tlb.page(1, GVA) is None and tlb.resume(1, GVA, MODE) is None
    assert tlb.page(2, GVA) == SMALL and tlb.resume(2, GVA, MODE) is not None


def test_walks_resume_at_the_lowest_cached_table() -> None:
    tlb = filled()
    assert tlb.resume(1, GVA, MODE) == (3, 0x2000, ALL)
    assert tlb.resume(1, GVA ^ 0x200000, MODE) == (2, 0x1000, ALL)
    assert tlb.resume(1, GVA ^ 1 << 30, MODE) == (1, 0, ALL)
    assert tlb.resume(1, GVA ^ 1 << 39, MODE) is None


def test_invlpg_keeps_neighbours_and_their_tables() -> None:
    tlb = filled()
    tlb.fill(1, GVA ^ 0x40000000, MODE, SMALL, TRAIL)
    tlb.invlpg(1, GVA, MODE)
    assert tlb.page(1, GVA) is None and tlb.resume(1, GVA, MODE) is None
    assert tlb.page(1, GVA ^ 0x40000000) == SMALL
    assert tlb.resume(1, GVA ^ 0x40000000, MODE) == (3, 0x2000, ALL)


def test_invlpg_anywhere_in_a_large_page_drops_it() -> None:
    tlb = filled(LARGE)
    assert tlb.page(1, GVA ^ 0x1FF000) == LARGE
    tlb.invlpg(1, GVA ^ 0x1FF000, MODE)
    assert tlb.page(1, GVA) is None


def test_small_and_large_entries_live_side_by_side() -> None:
    tlb = filled(LARGE)
    tlb.fill(1, GVA, MODE, SMALL, TRAIL)
    assert tlb.page(1, GVA) == SMALL
    assert tlb.page(1, GVA ^ 0x1000) == LARGE
    tlb.invlpg(1, GVA, MODE)
    assert tlb.page(1, GVA) is None


def test_flush_all() -> None:
    tlb = filled(Translation(0x5000, 12, ALL | GLOBAL))
    tlb.flush_all()
    assert tlb.page(1, GVA) is None and tlb.resume(1, GVA, MODE) is None


def test_eviction_is_seeded_and_only_forgets() -> None:
    def run(seed: int) -> list[list[bool]]:
        tlb, history = Tlb(Random(seed)), []
        for i in range(200):
            tlb.fill(i & 1, i << 12, MODE, SMALL, TRAIL)
            history.append([tlb.page(j & 1, j << 12) is not None for j in range(i + 1)])
        return history

    assert run(1) == run(1) != run(2)
    assert not all(all(present) for present in run(1))
    assert all(not late or early for a, b in zip(run(1), run(1)[1:], strict=False) for early, late in zip(a, b, strict=False))
