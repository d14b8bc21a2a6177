# SPDX-License-Identifier: GPL-2.0-only
"""The floors of the house: what imports what, `cimport` included, and the drawing of it in docs/architecture.md.

Which room may import from which stands in pyproject.toml, as contracts of import-linter. That tool cannot read the
compiled modules, which say `cimport` and `from cython.cimports`; this one reads everything.

Example: python tools/floors.py --write
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
PAGE = ROOT / "docs" / "architecture.md"
FACE = "shadowmmu"
"""The package itself, which holds the names of the engine's face: a floor of its own, right above the engine."""
_CIMPORT = re.compile(r"^\s*from (shadowmmu[\w.]*) cimport (.+)|^\s*cimport (shadowmmu[\w.]*)", flags=re.M)
Graph = Mapping[str, set[str]]


# --- reading


def modules() -> dict[str, list[Path]]:
    """Module name -> its .py and .pxd files."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*SRC.rglob("*.py"), *SRC.rglob("*.pxd")]):
        name = ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        found.setdefault(name, []).append(path)
    return found


def imports() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, anywhere in its files, for types too."""
    every = modules()
    return {name: {target for path in paths for target in _named(path, every)} - {name} for name, paths in every.items()}


def _named(path: Path, every: Mapping[str, object]) -> Iterator[str]:
    text = path.read_text()
    for package, names in _from_pxd(text) if path.suffix == ".pxd" else _from_py(ast.parse(text)):
        inside = [f"{package}.{name}" for name in names if f"{package}.{name}" in every]
        if inside or package in every:
            yield from inside or [package]


def _from_pxd(text: str) -> Iterator[tuple[str, list[str]]]:
    for package, names, whole in _CIMPORT.findall(text):
        yield (package or whole), [name.split()[0] for name in names.strip("() ").split(",") if name.strip()]


def _from_py(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.removeprefix("cython.cimports."), [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name.removeprefix("cython.cimports."), []) for alias in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), []


# --- judging


def floors(container: str) -> list[str]:
    """The rooms of a package from the lowest up, as pyproject.toml has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["containers"] == [container])
    return [f"{container}.{layer}" for layer in reversed(layers)]


def room_of(module: str, rooms: list[str]) -> str | None:
    """The room that a module lies in."""
    return next((room for room in rooms if module == room or module.startswith(room + ".")), None)


def upward(graph: Graph, rooms: list[str]) -> list[str]:
    """Imports that go up, as sentences."""
    height = {room: i for i, room in enumerate(rooms)}
    found = []
    for module, targets in sorted(graph.items()):
        here = room_of(module, rooms)
        for target in sorted(targets):
            there = room_of(target, rooms)
            if here and there and height[there] > height[here]:
                found.append(f"{module} imports {target}, which lies above it")
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that reach each other: Tarjan's strongly connected components of more than one."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in graph[name]:
            if target not in number:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in number:
            visit(name)
    return found


# --- drawing


def between(graph: Graph, rooms: list[str]) -> dict[str, set[str]]:
    """Room -> the rooms below that its modules import from."""
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for module, targets in graph.items():
        here = room_of(module, rooms)
        for there in (room_of(target, rooms) for target in targets):
            if here and there and there != here:
                found[here].add(there)
    return found


def reduced(graph: Graph) -> dict[str, set[str]]:
    """Without the arrows that follow from others: the drawing stays readable."""

    def reach(name: str) -> set[str]:
        return set().union(*({target} | reach(target) for target in graph[name])) if graph[name] else set()

    return {name: {t for t in targets if not any(t in reach(other) for other in targets if other != t)} for name, targets in graph.items()}


def draw(graph: Graph, container: str) -> str:
    """A flowchart in Mermaid, which code hosts draw: an arrow leads from a room to those it imports from."""
    rooms = floors(container)
    arrows = reduced(between(graph, rooms))

    def label(room: str) -> str:
        return room.removeprefix(container + ".")

    lines = ["flowchart TD"] + [f"    {label(room)} --> {label(target)}" for room in reversed(rooms) for target in sorted(arrows[room])]
    return "\n".join(lines)


def with_drawings(text: str) -> str:
    """The page with its drawings made anew: each is a mermaid block after a line `<!-- drawn by tools/floors.py: PACKAGE -->`."""
    graph = imports()
    return re.sub(
        r"(<!-- drawn by tools/floors\.py: ([\w.]+) -->\n```mermaid\n).*?```",
        lambda found: f"{found[1]}{draw(graph, found[2])}\n```",
        text,
        flags=re.S,
    )


if __name__ == "__main__":
    page = with_drawings(PAGE.read_text())
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page)
    else:
        print(draw(imports(), FACE), draw(imports(), f"{FACE}.engine"), sep="\n\n")
