# SPDX-License-Identifier: GPL-2.0-only
"""Readers of outside input, fuzzed with a fixed seed and budget; `make fuzz-readers` does more of the same."""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
from hypothesis import given, settings
from readers import CHOICES, PROPERTIES, SOURCES

EXAMPLES = {"capture file": 60, "kit folder": 60, "suite": 120, "arguments": 120}
"""Those that replay or run; of the others there are more."""


@pytest.mark.parametrize("reader", PROPERTIES)
def test_a_reader_reads_or_refuses(reader: str) -> None:
    @settings(max_examples=EXAMPLES.get(reader, 300))
    @given(CHOICES)
    def holds(choose: random.Random) -> None:
        PROPERTIES[reader](choose)

    holds()


# --- no reader is left out

BORDER = ("read_file", "Chunks")
OPENS = ("open", "read_bytes", "read_text")
OWN = {
    "cli/streams.py _sink", "runs/event_log.py EventLog.start", "check/bugs/hunt.py judges_hash", "check/bugs/bug.py _apply_edit",
    "check/bugs/hunt.py _shorten", "trace/text.py read_text",
    "runs/exported/player.py _image", "machine/cpu/unicorn_raw.py state_places", "machine/cpu/unicorn_raw.py _is_state",
    "runs/exercised/record.py read_record", "runs/exercised/sources.py _in_python", "runs/exercised/sources.py _inline",
}  # fmt: skip
"""What opens no input: output, the engine's own sources, and this process's own memory."""
ENOUGH = 60


def calls(names: tuple[str, ...]) -> Iterator[str]:
    """Functions of the package, the border's apart, that call one of these."""
    for path in SOURCES.rglob("*.py"):
        if path.is_relative_to(SOURCES / "border"):
            continue
        for name, function in functions(ast.parse(path.read_text())):
            called = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
            if any(getattr(f, "id", getattr(f, "attr", "")) in names for f in called):
                yield f"{path.relative_to(SOURCES)} {name}"


def functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """All of them, by the names that their code has (`co_qualname`): a method of one class is not that of another."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield within + node.name, node
            yield from functions(node, f"{within}{node.name}.<locals>.")
        else:
            yield from functions(node, f"{within}{node.name}." if isinstance(node, ast.ClassDef) else within)


def test_every_reader_is_fuzzed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads a file from outside does so by the border, and some property calls it."""
    left = set(calls(BORDER))
    assert len(left) > 8
    for path in {where.split()[0] for where in left}:
        module = import_module("shadowmmu." + path.removesuffix(".py").replace("/", "."))
        for name in set(BORDER) & set(vars(module)):
            monkeypatch.setattr(module, name, noted(getattr(module, name), path, left))
    for holds in PROPERTIES.values():  # those that run something come last
        for number in range(ENOUGH if left else 0):
            holds(random.Random(number))
    assert left == set()


def noted(reads: Callable[..., object], path: str, left: set[str]) -> Callable[..., object]:
    """The same, and whoever calls it is taken out of `left`."""

    def called(*arguments: object) -> object:
        left.discard(f"{path} {sys._getframe(1).f_code.co_qualname}")
        return reads(*arguments)

    return called


def test_nothing_else_opens_a_file() -> None:
    assert set(calls(OPENS)) - set(calls(BORDER)) <= OWN
