# SPDX-License-Identifier: GPL-2.0-only
"""The guest's programme: which of its steps is under way, and whether its plain store has been done.

A store that needs no exit leaves no event: it is known from the guest's list of operations, and done when the guest
is next seen behind the instruction.
"""

from __future__ import annotations

from shadowmmu.captures.capture import Op

SILENT = frozenset({"wr"})


class Programme:
    """One list of operations: L1's or L2's."""

    def __init__(self, ops: list[Op], nested_paging: bool) -> None:
        self.silent = SILENT | ({"cr3"} if nested_paging else set())
        """Kinds of operations that may be done without an exit."""
        self.ops = {op.i: op for op in ops}
        self.by_rip: dict[int, Op] = {op.rip: op for op in ops}
        self.now: Op | None = None
        self.pending = False
        """The store of `now` is still to be done."""
        self.given_up = False
        """A fault was given to the guest at the store; its handler goes on behind it, unless it is seen there again."""

    def start(self, number: int) -> Op | None:
        """The guest begins operation `number`: the one before, if its store has been done without being seen behind it."""
        late = self.now if self.pending and not self.given_up else None
        self.now = self.ops.get(number)
        self.pending = self.now is not None and self.now.op.removeprefix("l2_") in self.silent
        self.given_up = False
        return late

    def seen_at(self, rip: int) -> Op | None:
        """The guest was seen at `rip`: the operation whose store has been done meanwhile, if any."""
        if not self.pending or self.now is None:
            return None
        if rip == self.now.rip:
            self.given_up = False
            return None
        if rip < self.now.rip or self.given_up:
            return None
        self.pending = False
        return self.now

    def emulated(self, rip: int) -> None:
        """The emulator has done the instruction at `rip`."""
        if self.now is not None and rip == self.now.rip:
            self.pending = False

    def faulted(self, rip: int | None = None) -> None:
        """A fault of the instruction at `rip`, or of the operation under way, was given to the guest."""
        if self.now is not None and rip in (None, self.now.rip):
            self.given_up = True

    def operand(self, rip: int) -> int | None:
        """The value that the instruction at `rip` takes from a register; None: the list does not tell."""
        op = self.by_rip.get(rip)
        return None if op is None else op.val

    def describe(self) -> str:
        """The step under way, for people."""
        op = self.now
        if op is None:
            return "set-up"
        return f"op {op.i}: {in_words(op)}" + (f" ({op.note})" if op.note else "")


def in_words(op: Op) -> str:
    """An operation in few words."""
    kind = op.op.removeprefix("l2_")
    if kind == "wr":
        return f"write {op.val:x} ({op.size} bytes) to {op.va:x}"
    if kind == "rd":
        return f"read {op.va:x}"
    if kind in ("call", "invlpg", "invlpga"):
        return f"{kind} {op.va:x}"
    return f"{kind} {op.val:x}" if op.val else kind
