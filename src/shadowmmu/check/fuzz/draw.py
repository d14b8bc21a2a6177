# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Chance, as the author uses it: many times an operation, so that it is compiled."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """What is drawn of one seed, each time by one number of Python's generator; its own methods take longer than a page fault."""

    def __init__(self, seed: str) -> None:
        random = Random(seed)
        self.random, self.getrandbits, self.choices = random.random, random.getrandbits, random.choices

    def below(self, end: int) -> int:
        return int(self.random() * end)

    def between(self, first: int, end: int) -> int:
        return first + int(self.random() * (end - first))

    def randint(self, first: int, last: int) -> int:
        return self.between(first, last + 1)

    def choice(self, among: Sequence[T]) -> T:
        return among[int(self.random() * len(among))]

    def sample(self, among: Sequence[T], count: int) -> list[T]:
        """So many of them, in any order."""
        rest = list(among)
        for at in range(count):
            other = self.between(at, len(rest))
            rest[at], rest[other] = rest[other], rest[at]
        return rest[:count]
