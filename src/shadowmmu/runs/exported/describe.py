# SPDX-License-Identifier: GPL-2.0-only
"""The TOML file of an exported list."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from shadowmmu.machine.host import HostMemslot, HostStep
from shadowmmu.runs.exported.recording import Exported
from shadowmmu.runs.exported.steps import Do, Flag

_FEATURES = "pcid", "la57"


def checks_of(made: Exported) -> int:
    """Steps whose outcome is looked at."""
    return sum(step.do not in (Do.END, Do.HOST) and not step.flags & Flag.ANY for step in made.steps)


def describe(name: str, made: Exported) -> str:
    """It, as `machine.loader` reads it."""
    host, setup = made.host, made.setup
    lines = [
        f"# exported from a saved list of operations: shadowmmu run THIS --roots {setup.roots} --kernel {setup.kernel}",
        *(f"# left out: {why}" for why in made.left_out),
        *_fields(
            name=name, title=f"A saved list of {max((step.number for step in made.steps if step.do != Do.HOST), default=0)} operations",
            image=f"{name}.img", format="elf", vcpus=made.vcpus, mode="mixed", vendor=made.vendor,
            features=(*_FEATURES, *(("svm",) if made.has_l2 else ())),
            expect=f"DONE {checks_of(made)} passed, 0 failed",
        ),
        "",
        "[host]",
        *_fields(
            memory_mib=host.memory_mib, shadow_pages=host.shadow_pages, nx_huge_pages=host.nx_huge_pages,
            eager_page_split=host.eager_page_split, pages_1g=host.pages_1g, manual_log=host.manual_log, large=host.large,
        ),
    ]  # fmt: skip
    for slot in host.memslot:
        lines += ["", "[[host.memslot]]", *_fields(**_said(slot))]
    texts = {step.number: step.text for step in made.steps if step.do is Do.HOST}
    for step in host.step:
        lines += ["", "[[host.step]]", f"# {texts.get(step.at, '')}", *_step(step)]
    return "\n".join(lines) + "\n"


def _step(step: HostStep) -> list[str]:
    memslot = step.memslot
    lines = _fields(**_said(step) | {"memslot": None})
    return lines if memslot is None else [*lines, f"memslot = {{ {', '.join(_fields(**_said(memslot)))} }}"]


def _said(what: HostMemslot | HostStep) -> dict[str, Any]:
    """The fields that are not as they are by default."""
    default = {field.name: field.default for field in msgspec.structs.fields(type(what))}
    return {name: getattr(what, name) for name in what.__struct_fields__ if getattr(what, name) != default[name]}


def _fields(**values: object) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value) if value > 9 else str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
