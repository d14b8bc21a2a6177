# SPDX-License-Identifier: GPL-2.0-only
"""Breakpoints on data that an instruction meets, until they have been told. Bits of DR6."""

_ALL = 0xF


class Watched:
    """Of one vCPU."""

    def __init__(self) -> None:
        self.met = 0
        """By instructions that are done."""
        self._now = 0

    def touches(self, bits: int) -> None:
        """The instruction at RIP will meet these, if it comes to its end."""
        self._now = bits

    def done(self) -> None:
        """It has."""
        self.met |= self._now
        self._now = 0

    def tell(self, dr6: int) -> int:
        """DR6 with what was met; if that is none, it stays."""
        told = dr6 & ~_ALL | self.met if self.met else dr6
        self.met = 0
        return told

    def forget(self) -> None:
        """The guest is another one."""
        self.met = self._now = 0
