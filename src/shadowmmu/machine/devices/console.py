# SPDX-License-Identifier: GPL-2.0-only
"""What the guest prints, by lines."""

import cython
from cython.cimports.libc.stdint import uint8_t

from shadowmmu.border.limits import OUTPUT as _OUTPUT

NEW_LINE = cython.declare(uint8_t, 0x0A)


def put(text: TextPtr, character: uint8_t) -> cython.bint:
    """Print it; False: there is more to do than to keep it."""
    if not text.left:
        return True
    if character == NEW_LINE or text.length == ROOM:
        return False
    text.begun[text.length] = character
    text.length += 1
    text.left -= 1
    return True


@cython.final
@cython.cclass
class Console:
    """`on_output` gets each line the guest prints, its end included, and at the end what is left of one."""

    def __init__(self, on_output: object) -> None:
        self.on_output = on_output
        self.lines = []
        self.line = bytearray()
        self.text.left = _OUTPUT

    @property
    def full(self):
        """The guest has printed as much as is kept; what follows is lost, and the machine ends its run."""
        return not self.text.left

    def print(self, character: uint8_t):
        if put(cython.address(self.text), character):
            return
        self.gather()
        self.line.append(character)
        self.text.left -= 1
        if character == NEW_LINE:
            self.flush()

    @cython.cfunc
    def gather(self) -> object:
        self.line += self.text.begun[: self.text.length]
        self.text.length = 0

    def flush(self):
        """Hand on an unfinished line."""
        self.gather()
        if not self.line:
            return
        text: str = self.line.decode("utf-8", "replace").replace("\r\n", "\n")
        self.line.clear()
        self.lines.append(text)
        if self.on_output is not None:
            self.on_output(text)

    @property
    def output(self):
        """All complete lines so far, and the unfinished one."""
        self.gather()
        return "".join(self.lines) + self.line.decode("utf-8", "replace")
