# SPDX-License-Identifier: GPL-2.0-only
"""The processor's own state, read and written in place: what `uc_context_save` and `uc_context_restore` do, for a tenth of its bytes.

A saved context is a copy of all of it, FPU and vector registers included, of which an exit that is served in the CPU's hook needs some
spans. These alone are copied, to where the context has them and back, so that who works on the context sees no difference.

What the engine derives anew when a register is read or written, as EFLAGS, still goes through its functions.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uintptr_t
from cython.cimports.libc.string import memcpy


def read_raw(engine: cython.p_void, raw: cython.p_void) -> cython.int:
    """In place of `uc_context_save`."""
    i: cython.int
    its: RawPtr = cython.cast(RawPtr, raw)
    for i in range(its.spans):
        memcpy(its.context + its.span[i].at, its.state + its.span[i].at, its.span[i].size)
    return 0


def write_raw(engine: cython.p_void, raw: cython.p_void) -> cython.int:
    """In place of `uc_context_restore`."""
    i: cython.int
    its: RawPtr = cython.cast(RawPtr, raw)
    for i in range(its.spans):
        memcpy(its.state + its.span[i].at, its.context + its.span[i].at, its.span[i].size)
    return 0


@cython.final
@cython.cclass
class RawState:
    """The state at address `state`, of which a saved context has a copy at `context`; `spans`: (offset, bytes) of what is used."""

    def __init__(self, state: uintptr_t, context: uintptr_t, spans: object) -> None:
        i: cython.int
        if len(spans) > SPANS:
            raise ValueError(f"{len(spans)} spans, more than {SPANS}")
        self.raw.state = cython.cast(cython.pointer(uint8_t), state)
        self.raw.context = cython.cast(cython.pointer(uint8_t), context)
        self.raw.spans = len(spans)
        for i in range(self.raw.spans):
            self.raw.span[i].at, self.raw.span[i].size = spans[i]

    @property
    def save(self):
        """Address of the C function that reads it into the context."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, read_raw))

    @property
    def restore(self):
        """That of the one that writes it."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, write_raw))

    @property
    def data(self):
        """Address of what they are to be given. The object must outlive its use."""
        return cython.cast(uintptr_t, cython.address(self.raw))

    def read(self) -> None:
        read_raw(cython.NULL, cython.address(self.raw))

    def write(self) -> None:
        write_raw(cython.NULL, cython.address(self.raw))
