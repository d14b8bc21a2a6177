# SPDX-License-Identifier: GPL-2.0-only
"""Guests that a seed decides."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from kit.guest import Guest, Mode


class BySeed(Guest):
    """A random guest: the same each time from the same seed, and, cut shorter, its own beginning."""

    seed: int
    length: int
    """How many steps it has, if no other number is said."""

    def play(self, steps: int | None = None) -> Self:
        """Write its programme."""
        for _ in range(self.length if steps is None else steps):
            self.step()
        return self

    @abstractmethod
    def step(self) -> None:
        """Whatever comes next."""

    @abstractmethod
    def __init__(self, name: str, mode: Mode, seed: int) -> None:
        """It has no programme yet."""

    def again(self, name: str, steps: int) -> Self:
        """The same guest with another name, and so many steps."""
        return type(self)(name, self.mode, self.seed).play(steps)
