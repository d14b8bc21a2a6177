# SPDX-License-Identifier: GPL-2.0-only
"""Chance is the same for the same seed, stays in its bounds, and leaves nothing out."""

from collections import Counter
from itertools import accumulate

from shadowmmu.check.fuzz.draw import Draw


def test_a_seed_says_all() -> None:
    one, same, other = ([draw.getrandbits(64) for _ in range(8)] for draw in (Draw("a"), Draw("a"), Draw("b")))
    assert one == same and not set(one) & set(other)


def test_draws_are_within_bounds_and_reach_them() -> None:
    draw = Draw("bounds")
    assert {draw.below(6) for _ in range(500)} == set(range(6))
    assert {draw.randint(2, 4) for _ in range(200)} == {2, 3, 4}
    assert {draw.between(40, 52) for _ in range(1_000)} == set(range(40, 52))
    assert {draw.getrandbits(1) for _ in range(50)} == {0, 1}
    numbers = [draw.getrandbits(64) for _ in range(500)]
    assert all(any(number >> bit & 1 for number in numbers) and not all(number >> bit & 1 for number in numbers) for bit in range(64))
    fractions = [draw.random() for _ in range(1_000)]
    assert min(fractions) >= 0 and max(fractions) < 1 and max(fractions) - min(fractions) > 0.98


def test_weights_are_kept() -> None:
    draw, weights = Draw("weights"), {"often": 8.0, "never": 0.0, "seldom": 2.0}
    found = Counter(draw.weighted(tuple(weights), tuple(accumulate(weights.values()))) for _ in range(5_000))
    assert found["never"] == 0 and 3 < found["often"] / found["seldom"] < 5.5
    assert abs(sum(draw.chance(0.25) for _ in range(4_000)) - 1_000) < 200


def test_a_sample_has_each_once() -> None:
    draw = Draw("sample")
    assert all(len(set(draw.sample(range(10), 4))) == 4 for _ in range(100))
    assert sorted(draw.sample((1, 2, 3), 3)) == [1, 2, 3]
    assert {first for first, *_ in (draw.sample((1, 2, 3), 3) for _ in range(100))} == {1, 2, 3}
