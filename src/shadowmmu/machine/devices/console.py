# SPDX-License-Identifier: GPL-2.0-only
"""What the guest prints, by lines."""

from collections.abc import Callable

from shadowmmu.border.limits import OUTPUT


class Console:
    """`on_output` gets each line the guest prints, its end included, and at the end what is left of one.

    full    the guest has printed as much as is kept; what follows is lost, and the machine ends its run
    """

    def __init__(self, on_output: Callable[[str], None] | None) -> None:
        self._on_output = on_output
        self._output: list[str] = []
        self._line = bytearray()
        self._left = OUTPUT

    @property
    def full(self) -> bool:
        return not self._left

    def print(self, character: int) -> None:
        if self.full:
            return
        self._left -= 1
        self._line.append(character)
        if character == 0x0A:
            self.flush()

    def flush(self) -> None:
        """Hand on an unfinished line."""
        if not self._line:
            return
        text = self._line.decode("utf-8", "replace").replace("\r\n", "\n")
        self._line.clear()
        self._output.append(text)
        if self._on_output is not None:
            self._on_output(text)

    @property
    def output(self) -> str:
        """All complete lines so far, and the unfinished one."""
        return "".join(self._output) + self._line.decode("utf-8", "replace")
