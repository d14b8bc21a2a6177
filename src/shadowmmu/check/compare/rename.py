# SPDX-License-Identifier: GPL-2.0-only
"""One-to-one renaming of host addresses: two systems agree if some renaming makes them equal, and it is kept."""

from __future__ import annotations


class Renaming:
    """A bijection that grows with each pair seen, and forgets what has died."""

    def __init__(self) -> None:
        self.ours: dict[int, int] = {}
        """The kernel's value -> ours."""
        self.theirs: dict[int, int] = {}

    def agree(self, kernel: int, engine: int) -> bool:
        """Whether the two may stand for each other; the first time, they do from now on."""
        if kernel not in self.ours and engine not in self.theirs:
            self.ours[kernel] = engine
            self.theirs[engine] = kernel
            return True
        return self.ours.get(kernel) == engine

    def forget(self, engine: int) -> None:
        """Our value has died; its number may come back with another meaning, and so may the kernel's."""
        kernel = self.theirs.pop(engine, None)
        if kernel is not None:
            del self.ours[kernel]
