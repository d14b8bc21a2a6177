# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu explain`: a trace of KVM's MMU, told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from shadowmmu.border.plain import plain
from shadowmmu.cli.output import console, print_json
from shadowmmu.runs.explained.source import Progress, count_file, explain_file
from shadowmmu.trace.ftrace.format_files import kernel_of_formats
from shadowmmu.trace.ftrace.guess import Kernel, said
from shadowmmu.trace.layouts import version_of
from shadowmmu.view.draw_explain import draw_counts, draw_explanation


def explain(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    kernel: str | None = None,
    formats: Path | None = None,
    count: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Explain a trace of KVM's MMU: faults with what they caused, the rule behind each event, what contradicts itself.

    It takes text of tracefs, trace-cmd report (with its plugin, or -R) and perf script, of all kernels since 2.6.31, also cut,
    counted by uniq -c, or quoted in a mail; walks with reserved bits as the kernel's log draws them; traces of shadowmmu run,
    captures; trace.dat where trace-cmd is installed. Files may be packed by gzip or xz.

    Exit code 1 if the trace contradicts itself, as one with changed or missing lines does.

    Example: shadowmmu explain trace.txt

    Example: cat /sys/kernel/tracing/trace_pipe | shadowmmu explain -

    Parameters
    ----------
    file
        The trace; - is standard input, which is read to its end or to Ctrl-C; or the name of a capture.
    kernel
        The kernel's version, as 5.15, where it is known: it decides how raw role words and numbers are read.
    formats
        The traced kernel's folder /sys/kernel/tracing/events/kvmmmu, or a `format` file from it: it decides the same.
    count
        Only count events by kind, which is ten times as fast.
    json
        Print everything as JSON.
    """
    out = console()
    with _progress(out, quiet=json) as progress:
        if count:
            told = count_file(file, progress)
        else:
            told = explain_file(file, _kernel(kernel, formats), progress)
    if json:
        print_json("shadowmmu.explain/1", told)
    else:
        out.print(draw_counts(told) if count else draw_explanation(told))
    return int(told.anomaly_count > 0)


def _kernel(version: str | None, formats: Path | None) -> Kernel | None:
    """Which kernel was traced, if that is known."""
    if version is not None:
        return said(version_of(version))
    return None if formats is None else kernel_of_formats(formats)


@contextmanager
def _progress(out: Console, quiet: bool) -> Iterator[Progress]:
    """On a terminal, how far a long file has been read."""
    if quiet or not out.is_terminal:
        yield lambda *_: None
        return
    with out.status("reading", spinner="dots") as status:

        def tell(lines: int, read: int, size: int) -> None:
            part = f", {100 * read // size} %" if size else ""
            status.update(plain(f"{lines:,} lines{part}"))

        yield tell
