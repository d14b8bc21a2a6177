# SPDX-License-Identifier: GPL-2.0-only
"""The .pyi files: each says what its compiled module has at run time, no more and no less, and nothing in them is Any."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import shadowmmu

ROOT = Path(__file__).parents[3]
STUBS = sorted((ROOT / "src").rglob("*.pyi"))
ALLOWED = Path(__file__).with_name("stubs_allowed.txt")


def test_the_stubs_say_what_is_there() -> None:
    modules = [".".join(stub.relative_to(ROOT / "src").with_suffix("").parts) for stub in STUBS]
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--allowlist", str(ALLOWED), *modules]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"{told.stdout}{told.stderr}\nif enums have changed: python tools/stubs.py --write"


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)
def test_no_stub_gives_up(stub: Path) -> None:
    """Who calls the engine is told what it gives."""
    names = {node.id for node in ast.walk(ast.parse(stub.read_text())) if isinstance(node, ast.Name)}
    assert not names & {"Any", "Incomplete"}


def test_a_vm_takes_the_fields_of_its_configuration() -> None:
    """At run time `Vm` takes any keyword and `VmConfig` refuses: that the stub names them all is not seen by stubtest."""
    stub = ast.parse((ROOT / "src/shadowmmu/engine/face/vm.pyi").read_text())
    (new,) = [node for node in ast.walk(stub) if isinstance(node, ast.FunctionDef) and node.name == "__new__"]
    taken = {
        argument.arg: (ast.unparse(argument.annotation or argument), ast.literal_eval(default or argument))
        for argument, default in zip(new.args.kwonlyargs, new.args.kw_defaults, strict=True)
    }
    types = inspect.get_annotations(shadowmmu.VmConfig, eval_str=True)
    assert taken == {field.name: (types[field.name].__name__, field.default) for field in fields(shadowmmu.VmConfig)}


def test_every_public_name_has_a_docstring() -> None:
    """Of the package: its classes, and their methods and properties; a plain attribute is explained by its class."""
    for name in shadowmmu.__all__:
        thing = getattr(shadowmmu, name)
        if inspect.isclass(thing):
            own = {key: value for key, value in vars(thing).items() if not key.startswith("_")}
            told = [
                key for key, value in own.items() if callable(value) or isinstance(value, property) or inspect.isgetsetdescriptor(value)
            ]
            missing = [key for key in told if not getattr(thing, key).__doc__ and f"`{key}`" not in thing.__doc__]
            assert thing.__doc__ and not missing, f"{name}: {missing}"
