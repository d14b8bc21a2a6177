# SPDX-License-Identifier: GPL-2.0-only
"""The table of root designs, and that nothing in the engine beside it asks which one a VM has."""

from __future__ import annotations

import re

import pytest
from designs import every_design
from engine_source import ENGINE

from shadowmmu import ROOT_DESIGNS, Vm
from shadowmmu.captures.find import find
from shadowmmu.check.replay.replay import Replay
from shadowmmu.check.rerun.rerun import Rerun
from shadowmmu.check.special_roots.known_differences import KNOWN_DIFFERENCES
from shadowmmu.runs.compare import REASONS

SEAM = {
    "arena/state.pxd": "walk_start",  # where RootOps is declared
    "entries/shadow_walk.pxd": "walk_start",
    "guest/mmu.py": "create_tables",
    "face/create_vm.py": "set_root_ops",
    "roots/roots.py": "prepare load free sync",
}
"""Where a design's operations are used, and which: all that the engine knows of it."""
PAGES = {"arena/events.py", "entries/shadow_walk.pxd", "face/views.py", "roots/roots.py", "shadow/get_page.py", "shadow/special.py"}
"""Where a page is asked whether it is a special one."""


def code() -> dict[str, str]:
    """File of the engine -> its text without comments and docstrings."""
    texts = {}
    for path in sorted([*ENGINE.rglob("*.py"), *ENGINE.rglob("*.pxd")]):
        text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
        texts[str(path.relative_to(ENGINE))] = re.sub(r"#.*", "", text)
    return texts


def modules() -> set[str]:
    """Files of the designs themselves: the modules that the table imports."""
    table = (ENGINE / "roots" / "designs.py").read_text()
    names = re.findall(r"engine\.roots\.(\w+) import", table)
    assert len(names) == len(ROOT_DESIGNS)
    return {f"roots/{name}.{end}" for name in (*names, "designs") for end in ("py", "pxd")}


def test_nothing_beside_the_table_names_a_design() -> None:
    """Neither by its name nor by its module."""
    names = "|".join(f"{name}_?roots|[\"']{name}[\"']" for name in ROOT_DESIGNS)
    naming = {file for file, text in code().items() if re.search(rf"\b({names})\b|{names}", text)}
    assert naming <= modules() | {"face/config.py"}, "face/config.py has the default"


def test_the_operations_of_a_design_are_used_in_the_seam_alone() -> None:
    uses = {file: text for file, text in code().items() if "root_ops" in text}
    assert uses.keys() - modules() == SEAM.keys()
    for file, text in uses.items():
        if file in SEAM and file != "arena/state.pxd":
            assert set(re.findall(r"root_ops\.(\w+)", text)) | set(re.findall(r"set_root_ops", text)) == set(SEAM[file].split())


def test_a_page_is_asked_whether_it_is_special_in_few_places() -> None:
    assert {file for file, text in code().items() if re.search(r"\.special\b(?! c?import)", text)} == PAGES


@every_design
def test_a_design_says_what_it_is(roots: str) -> None:
    design = ROOT_DESIGNS[roots]
    assert design.name == roots == Vm(memory_mib=4, roots=roots).roots
    assert 10 < len(design.says) < 80 and set(design.differences) <= {one.letter for one in KNOWN_DIFFERENCES}
    assert design.more and design.more.keys() <= REASONS.keys()
    assert bool(design.kernel) == (not design.differences)


def test_a_design_that_is_not_there_is_refused_by_name() -> None:
    """Wherever Python users give one."""
    capture = find("shadow/p32_basic")[0].load()
    for use in (lambda: Vm(roots="posted"), lambda: Replay(capture, "posted"), lambda: Rerun(capture, "posted")):
        with pytest.raises(ValueError, match="roots is 'posted'; choose one of " + ", ".join(map(repr, ROOT_DESIGNS))):
            use()
