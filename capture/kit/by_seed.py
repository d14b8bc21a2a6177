# SPDX-License-Identifier: GPL-2.0-only
"""Guests that a seed decides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Self

from kit.guest import Guest, Mode


class BySeed(Guest):
    """A random guest: the same each time from the same seed, and, cut shorter, its own beginning.

    It is made of a name, a mode and its seed, and has no programme yet.
    """

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

    def again(self, name: str, steps: int) -> Self:
        """The same guest with another name, and so many steps."""
        make: Callable[[str, Mode, int], Self] = type(self)
        return make(name, self.mode, self.seed).play(steps)
