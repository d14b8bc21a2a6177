# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What the oracle asks of the memory of a VM."""


class GuestMemory:
    """The VM's memslots as they are now: what backs an address, whether it may be written; aligned values there.

    A kind of memory says the first three. The others are how the oracle's compiled code asks, which goes through all watched
    entries at each flush: who can answer these quicker does.
    """

    def host(self, gpa: int) -> int | None:
        raise NotImplementedError

    def writable(self, gpa: int) -> bool:
        raise NotImplementedError

    def read(self, hpa: int, size: int) -> int:
        raise NotImplementedError

    def frame(self, gpa: int) -> int:
        """`host`, or NOWHERE."""
        hpa = self.host(gpa)
        return NOWHERE if hpa is None else hpa

    def stores(self, gpa: int) -> bool:
        """`writable`."""
        return self.writable(gpa)

    def value(self, hpa: int, width: int) -> int:
        """`read`, of an entry."""
        return self.read(hpa, width)

    def is_aliased(self, gpa: int) -> bool:
        """Another gfn has, or may have had, the same host memory."""
        return False
