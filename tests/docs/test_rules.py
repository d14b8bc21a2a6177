# SPDX-License-Identifier: GPL-2.0-only
"""docs/rules.md: every rule has a test by its number, and every function it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engine_source import functions

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "docs" / "rules.md").read_text()
ENGINE = ROOT / "src" / "shadowmmu" / "engine"
AUDIT = "".join(path.read_text() for path in sorted((ROOT / "src" / "shadowmmu" / "check" / "audit").glob("*.py")))
TESTS = "".join(path.read_text() for room in ("rules", "unit") for path in sorted((ROOT / "tests" / room).rglob("test_*.py")))


@pytest.mark.parametrize("letter", ["R", "P", "I", "H"])
def test_every_rule_has_a_test_that_names_it(letter: str) -> None:
    numbers = [int(number) for number in re.findall(rf"^\| {letter}(\d+) \|", RULES, flags=re.M)]
    assert len(numbers) >= 5 and numbers == list(range(1, len(numbers) + 1)), "numbers go up one by one, and none is used again"
    tested = {int(number) for name in re.findall(r"def (test_\w+)", TESTS) for number in re.findall(rf"_{letter.lower()}(\d+)", name)}
    assert not set(numbers) - tested, f"no test names {letter}{min(set(numbers) - tested, default=0)}"


def test_functions_of_the_engine_that_the_rules_name_exist() -> None:
    for module, function in re.findall(r"`(\w+)\.(\w+)`", RULES):
        text = "".join(path.read_text() for end in ("py", "pxd") for path in ENGINE.rglob(f"{module}.{end}"))
        assert re.search(rf"\b{function}\(", text), f"rules.md names {module}.{function}, which is not there"


def test_a_function_that_holds_a_rule_says_so() -> None:
    """Whoever changes it reads there which rule is at stake."""
    texts = functions()
    rows = re.findall(r"^\| ([RH]\d+) \|(.*)", RULES, flags=re.M)
    assert len(rows) >= 34
    silent = [
        f"{module}.{name} does not mention {rule}"
        for rule, row in rows
        for module, name in re.findall(r"`(\w+)\.(\w+)`", row)
        if not re.search(rf"\b{rule}\b", texts[f"{module}.{name}"])
    ]
    assert not silent


def test_functions_of_the_audit_that_the_rules_name_exist() -> None:
    named = set(re.findall(r"`(validate_\w+)`", RULES))
    defined = set(re.findall(r"^def (validate_\w+)\(", AUDIT, flags=re.M))
    assert named and named <= defined, f"rules.md names {named - defined}"


def test_a_check_of_the_audit_names_the_invariants_it_decides() -> None:
    """Whatever a function reports stands in its docstring."""
    for function in re.split(r"^def ", AUDIT, flags=re.M)[1:]:
        told = set(re.findall(r'say\(\s*"(I\d+)"', function))
        docstring = re.search(r'"""(.*?)"""', function, flags=re.S)
        assert not told or (docstring and told <= set(re.findall(r"I\d+", docstring[1]))), function.partition("(")[0]
