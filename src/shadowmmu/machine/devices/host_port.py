# SPDX-License-Identifier: GPL-2.0-only
"""The port by which a guest says how far it is, so that its host does what the guest's description says it does then."""

from collections.abc import Callable

HOST_PORT = 0xEC


class HostPort:
    """`perform` is called with the number that is written."""

    def __init__(self, perform: Callable[[int], None]) -> None:
        self._perform = perform

    def read(self, offset: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        self._perform(value)
