# SPDX-License-Identifier: GPL-2.0-only
"""Standard output and standard error as the process has them: nothing that happens to them stops a run on its way.

A reader that leaves, a full disk, an encoding that lacks a sign: what cannot be written is dropped, and `main` says so at the end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from shadowmmu.border.plain import ENCODING_ERRORS


class Sink(io.FileIO):
    """A file that takes everything; `failure` is why it no longer passes it on."""

    failure: OSError | None = None

    def write(self, data: object) -> int:
        if self.failure is None:
            try:
                return super().write(data) or 0  # type: ignore[arg-type]
            except OSError as error:
                self.failure = error
        return len(memoryview(data))  # type: ignore[arg-type]


def take_over() -> tuple[Sink, Sink]:
    """Put sinks below `sys.stdout` and `sys.stderr`, which the caller may have closed."""
    output, errors = _sink(sys.stdout, 1), _sink(sys.stderr, 2)
    sys.stdout, sys.stderr = _text(output, sys.stdout, False), _text(errors, sys.stderr, True)
    return output, errors


def _sink(stream: TextIO | None, number: int) -> Sink:
    return Sink(os.open(os.devnull, os.O_WRONLY) if stream is None else number, "w", closefd=False)


def _text(sink: Sink, stream: TextIO | None, by_line: bool) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    return io.TextIOWrapper(io.BufferedWriter(sink), encoding, ENCODING_ERRORS, line_buffering=by_line or sink.isatty())
