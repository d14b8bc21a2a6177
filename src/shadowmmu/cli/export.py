# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu export`: a saved list of operations as a guest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from shadowmmu.border.files import check_place, parsing, write_file
from shadowmmu.border.limits import DESCRIPTION
from shadowmmu.cli.output import console, print_json
from shadowmmu.errors import BadInput
from shadowmmu.runs.exported.describe import checks_of, describe
from shadowmmu.runs.exported.export import export as export_list
from shadowmmu.runs.exported.player import image_of
from shadowmmu.runs.operations_run import read_list


class ExportReport(msgspec.Struct, kw_only=True):
    """`run`: the command that runs it. `checks`: steps whose outcome is looked at. `left_out`: operations that would end the VM."""

    description: str
    image: str
    run: str
    checks: int
    left_out: list[str]


def export(ops: Path, /, *, to: Path, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Make a guest of a saved list of operations: an image whose instructions do them, and a TOML file with the host's part.

    The guest checks each access against what a bare CPU would give, and `shadowmmu run` audits it like any other. Exit code 2, and nothing
    is written, if an operation is none that a guest of this machine can do; the line names it.

    Example: shadowmmu export found.ops --to regressions

    Parameters
    ----------
    ops
        A list that `shadowmmu fuzz --save` or `shadowmmu bugs --save` wrote.
    to
        The folder for the two files, which have the list's name.
    json
        Print the report as JSON.
    """
    name = ops.stem
    description, image = to / f"{name}.toml", to / f"{name}.img"
    for path in (description, image):
        check_place(path)
    setup, operations = read_list(ops)
    with parsing(str(ops), "export another list"):
        made = export_list(setup, operations)
        data, text = image_of(made.steps, made.memory), describe(name, made).encode()
    if len(text) > DESCRIPTION:
        raise BadInput(f"{ops}: the host does so much in it that its TOML file has more than {DESCRIPTION:,} bytes; export a shorter list")
    write_file(image, data)
    write_file(description, text)
    run = f"shadowmmu run {description} --roots {setup.roots} --kernel {setup.kernel}"
    report = ExportReport(description=str(description), image=str(image), run=run, checks=checks_of(made), left_out=made.left_out)
    if json:
        print_json("shadowmmu.export/1", report)
        return 0
    out = console()
    for why in report.left_out:
        out.print(f"left out: {why}", highlight=False, markup=False)
    out.print(run, highlight=False, markup=False, soft_wrap=True)
    return 0
