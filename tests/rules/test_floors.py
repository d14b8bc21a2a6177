# SPDX-License-Identifier: GPL-2.0-only
"""The floors of the house: rooms import downward only, compiled modules included; what is inline is told of."""

from __future__ import annotations

import re
from pathlib import Path

import floors
import pytest

GRAPH = floors.imports()
PACKAGES = ["shadowmmu", "shadowmmu.check", "shadowmmu.machine", "shadowmmu.engine"]


def test_the_reader_sees_both_ways_of_importing_compiled_modules() -> None:
    """Else the other tests would hold nothing: .pxd files say cimport, .py files import from cython.cimports."""
    assert "shadowmmu.engine.arena.state" in GRAPH["shadowmmu.engine.pages.zap"]
    assert "shadowmmu.x86.pte" in GRAPH["shadowmmu.engine.arena.spte"]
    assert "shadowmmu.check.audit" in GRAPH["shadowmmu.runs.guest_run"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_lies_in_a_room(package: str) -> None:
    rooms = floors.floors(package)
    homeless = {name for name in GRAPH if name.startswith(package + ".") and floors.room_of(name, rooms) is None}
    assert homeless <= {"shadowmmu.__main__", "shadowmmu.testing"}, "these two are for whoever calls from outside"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_imports_from_above(package: str) -> None:
    assert floors.upward(GRAPH, floors.floors(package)) == []


def test_what_lies_below_the_face_does_not_import_the_package() -> None:
    """`from shadowmmu import Vm` is an import of the engine's face."""
    below = [room for room in floors.floors("shadowmmu") if room.rpartition(".")[2] in ("errors", "x86", "hardware", "engine")]
    assert not [name for name, targets in GRAPH.items() if floors.room_of(name, below) and "shadowmmu" in targets]


def test_no_module_reaches_itself() -> None:
    assert floors.circles(GRAPH) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}}, [["a", "b", "c"], ["d", "e"]]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], found: list[list[str]]) -> None:
    assert sorted(floors.circles(graph)) == found


def test_an_import_from_above_is_found() -> None:
    rooms = floors.floors("shadowmmu.engine")
    graph = {"shadowmmu.engine.arena.state": {"shadowmmu.engine.face.vm"}, "shadowmmu.engine.face.vm": set()}
    assert floors.upward(graph, rooms) == ["shadowmmu.engine.arena.state imports shadowmmu.engine.face.vm, which lies above it"]


def test_the_trusted_base_shares_no_code_with_the_engine() -> None:
    """hardware/ and the oracle judge the engine: not even by detour do they import it."""
    trusted = [name for name in GRAPH if name.startswith(("shadowmmu.hardware", "shadowmmu.check.oracle"))]
    seen, left = set(trusted), list(trusted)
    while left:
        for target in GRAPH[left.pop()] - seen:
            seen.add(target)
            left.append(target)
    assert not [name for name in seen if name.startswith(("shadowmmu.engine", "shadowmmu.x86.reserved"))]


def test_the_drawing_is_made_from_the_code() -> None:
    page = floors.PAGE.read_text()
    assert floors.with_drawings(page) == page, "draw it anew: python tools/floors.py --write"


@pytest.mark.parametrize("pxd", sorted(floors.SRC.rglob("*.pxd")), ids=lambda path: str(path.relative_to(floors.SRC)))
def test_what_is_inline_is_named_where_one_looks_for_it(pxd: Path) -> None:
    """A function in a .pxd has a second syntax and is not found in the .py: its module's docstring names it."""
    docstring = re.search(r'""".*?"""', pxd.with_suffix(".py").read_text(), flags=re.S)
    for name in re.findall(r"^cdef inline [^\n(]*?\*?(\w+)\(", pxd.read_text(), flags=re.M):
        assert docstring and re.search(rf"\b{name}\b", docstring[0]), f"{pxd.with_suffix('.py').name} does not name {name}"
