# SPDX-License-Identifier: GPL-2.0-only
"""The compiled functions of the engine, read from its sources: a module's .py, and what is inline in the .pxd beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

PACKAGE = Path(__file__).resolve().parents[2]
ENGINE = PACKAGE / "engine"
_INLINE = re.compile(r"^cdef inline [^\n(]*?(\w+)\(.*\n(?:(?: .*)?\n)*", flags=re.M)


class Function(msgspec.Struct, frozen=True, order=True):
    """`module` is the path below the package without an end: `engine/roots/roots`. A method has its class before it: `Vm.save`."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.name}"


class Place(msgspec.Struct, frozen=True):
    """Where a function stands: its lines, from the first decorator to the last."""

    function: Function
    file: str
    first: int
    last: int


def module_of(path: Path) -> str:
    """What a file of the engine's is called in the record."""
    return str(path.relative_to(PACKAGE).with_suffix(""))


def is_compiled(path: Path) -> bool:
    return path.with_suffix(".pxd").exists()


@cache
def places() -> tuple[Place, ...]:
    """All functions of the compiled modules."""
    modules = sorted(path for path in ENGINE.rglob("*.pxd") if path.stem != "__init__")
    return tuple(place for path in modules for place in (*_in_python(path.with_suffix(".py")), *_inline(path)))


def functions() -> frozenset[Function]:
    return frozenset(place.function for place in places())


def _in_python(path: Path) -> Iterator[Place]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield _place(path, node.name, node)
        elif isinstance(node, ast.ClassDef):
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            yield from (_place(path, f"{node.name}.{method.name}", method) for method in methods)


def _inline(path: Path) -> Iterator[Place]:
    text = path.read_text()
    for found in _INLINE.finditer(text):
        first = text.count("\n", 0, found.start()) + 1
        last = first + found[0].count("\n") - 1
        yield Place(Function(module_of(path), found[1]), str(path.relative_to(PACKAGE)), first, last)


def _place(path: Path, name: str, node: ast.FunctionDef) -> Place:
    first = min((one.lineno for one in node.decorator_list), default=node.lineno)
    return Place(Function(module_of(path), name), str(path.relative_to(PACKAGE)), first, node.end_lineno or first)
