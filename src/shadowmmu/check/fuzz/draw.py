# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Chance, as the author uses it: many times an operation, so that it is compiled, its generator (SplitMix64) too."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

T = TypeVar("T")
WORD = (1 << 64) - 1
UNIT = 2.0**-53
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Draw:
    """What is drawn of one seed."""

    def __init__(self, seed: str) -> None:
        self.state = int.from_bytes(sha256(seed.encode()).digest()[:8], "little")

    def word(self) -> int:
        """64 bits."""
        self.state = self.state + STEP & WORD
        mixed = self.state
        mixed = (mixed ^ mixed >> 30) * FIRST & WORD
        mixed = (mixed ^ mixed >> 27) * SECOND & WORD
        return mixed ^ mixed >> 31

    def getrandbits(self, bits: int) -> int:
        """Up to 64."""
        return self.word() >> 64 - bits

    def random(self) -> float:
        """From 0 to below 1."""
        return (self.word() >> 11) * UNIT

    def chance(self, often: float) -> bool:
        return self.random() < often

    def below(self, end: int) -> int:
        """From 0 on, for an end of up to 32 bits."""
        return (self.word() >> 32) * end >> 32

    def between(self, first: int, end: int) -> int:
        return first + self.below(end - first)

    def randint(self, first: int, last: int) -> int:
        return self.between(first, last + 1)

    def choice(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]

    def weighted(self, among: Sequence[T], upto: Sequence[float]) -> T:
        """One of them; `upto`: the weight of each, with all before it."""
        wanted = self.random() * upto[-1]
        for number, weight in enumerate(upto):
            if wanted < weight:
                return among[number]
        return among[-1]

    def sample(self, among: Sequence[T], count: int) -> list[T]:
        """So many of them, in any order."""
        rest = list(among)
        for at in range(count):
            other = self.between(at, len(rest))
            rest[at], rest[other] = rest[other], rest[at]
        return rest[:count]
