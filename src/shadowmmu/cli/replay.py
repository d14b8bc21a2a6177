# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu replay`: captures of the real kernel against the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.find import Found, find_all
from shadowmmu.captures.load import SUFFIX, save
from shadowmmu.captures.validate import undoable
from shadowmmu.check.compare.result import ReplayResult
from shadowmmu.check.replay.replay import Replay
from shadowmmu.cli.chosen_captures import AsJson, Every, Kit, Verbose, Wanted, one_by_one
from shadowmmu.cli.kernels import KernelName
from shadowmmu.cli.output import console, print_json, print_text
from shadowmmu.cli.roots import Roots
from shadowmmu.errors import BadInput
from shadowmmu.look.picture import take_picture
from shadowmmu.trace.text import text_lines, to_text
from shadowmmu.view.draw_picture import draw_picture
from shadowmmu.view.draw_replay import draw_results


class Replays(msgspec.Struct):
    results: list[ReplayResult]


def replay(
    *captures: Wanted,
    kit: Kit = None,
    every: Every = False,
    roots: Roots | None = None,
    captured_on: Roots | None = None,
    kernel: KernelName | None = None,
    judge: Annotated[bool, Parameter(negative="")] = False,
    at: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    pack: Path | None = None,
    text: Annotated[bool, Parameter(negative="")] = False,
    verbose: Verbose = False,
    json: AsJson = False,
) -> int:
    """Replay captures of Linux's own shadow MMU on the engine, event by event, and compare all that can be seen.

    Exit code 1 if one diverges; it is then shown side by side with what the kernel did.

    Example: shadowmmu replay shadow/p32_basic

    Parameters
    ----------
    roots
        The captured kernel's own, if not given: with these all must be equal. On another root design than its legacy roots
        every event, entry and counter must be equal too, or be explained by one of the known differences, which are counted.
    captured_on
        The roots of the captured kernel, where captures do not say them; legacy, if not given.
    kernel
        Try the rules of another kernel than the captured one: the first divergence is told.
    judge
        Oracle and audit also look at the replayed VM: what the kernel did is held against the guest's own tables.
    at
        Stop before this event of the (only) capture, and draw the shadow tables there.
    pack
        Do not replay: write each capture as one compressed file into this folder.
    text
        Do not replay: print the events as text.
    """
    found = find_all(captures, kit)
    if pack is not None:
        return _pack(found, pack)
    if text:
        for one in found:
            print_text(text_lines(one.load().events))
        return 0
    if at is not None:
        return _show(found, roots, captured_on, kernel, at)
    results = _replay_all(found, roots, captured_on, kernel, judge, quiet=json)
    if json:
        print_json("shadowmmu.replay/1", Replays(results))
    else:
        console().print(draw_results(results, verbose or every or len(results) == 1), crop=False)
    return int(not all(result.ok for result in results))


def _replay_all(
    found: list[Found], roots: Roots | None, captured_on: Roots | None, kernel: KernelName | None, judge: bool, quiet: bool
) -> list[ReplayResult]:
    results = []
    with one_by_one(found, quiet) as turns:
        for one in turns:
            with undoable(one.argument):
                result = _replay(_on_kernel(one.load(), kernel), roots, captured_on, judge)
            result.argument = one.argument
            results.append(result)
    return results


def _replay(capture: Capture, roots: Roots | None, captured_on: Roots | None, judge: bool) -> ReplayResult:
    """What no known difference explains on other roots than the captured kernel's is left to oracle and audit."""
    result = Replay(capture, roots, captured_on, judged=judge).run()
    if result.divergence is None or judge or result.roots == result.captured_on:
        return result
    return Replay(capture, roots, captured_on, judged=True).run()


def _on_kernel(capture: Capture, kernel: KernelName | None) -> Capture:
    """The capture as if that kernel had made it."""
    if kernel is None:
        return capture
    return msgspec.structs.replace(capture, setup=msgspec.structs.replace(capture.setup, kernel=kernel))


def _pack(found: list[Found], folder: Path) -> int:
    for one in found:
        path = folder / (one.name + SUFFIX)
        save(one.load(), path)
        print(path)
    return 0


def _show(found: list[Found], roots: Roots | None, captured_on: Roots | None, kernel: KernelName | None, at: int) -> int:
    """The tables just before one event."""
    if len(found) != 1:
        raise BadInput(f"--at needs one capture, not {len(found)}: name it as set/guest, for example {found[0].name}")
    with undoable(found[0].argument):
        replay = Replay(_on_kernel(found[0].load(), kernel), roots, captured_on)
        if at > len(replay.events):
            raise BadInput(f"{found[0].name} has {len(replay.events)} events: choose --at up to that")
        result = replay.run(at)
    result.argument = found[0].argument
    out = console()
    if result.divergence is not None:
        out.print(draw_results([result], True), crop=False)
        return 1
    out.print(f"{found[0].name} before event {at}, {replay.operation()}", style="dim")
    out.print(draw_picture(take_picture(replay.seen)))
    out.print(f"the kernel's next: {to_text(replay.events[at]) if at < len(replay.events) else 'nothing, the capture is over'}")
    return 0
