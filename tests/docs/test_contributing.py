# SPDX-License-Identifier: GPL-2.0-only
"""CONTRIBUTING.md says what the code has."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
ENGINE = ROOT / "src" / "shadowmmu" / "engine"


def test_the_operations_of_a_root_design_are_those_of_the_engine() -> None:
    struct = (ENGINE / "arena" / "state.pxd").read_text().partition("cdef struct RootOps:")[2].partition("ctypedef")[0]
    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M) == re.findall(r"\(\*(\w+)\)", struct)


def test_the_example_is_what_the_module_has() -> None:
    (example,) = re.findall(r"^```python\n(def .*?)^```", PAGE, flags=re.M | re.S)
    assert example in (ENGINE / "roots" / "prefilled_roots.py").read_text()
    table = (ENGINE / "roots" / "designs.py").read_text()
    row = re.findall(r"^Design\(\n(.*?)\n\),$", PAGE, flags=re.M | re.S)[0]
    fields = [line.strip() for line in row.splitlines() if "…" not in line]
    assert len(fields) == 6 and all(field in table for field in fields)


def test_recipes_and_files_that_it_names_exist() -> None:
    recipes = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"`make ([a-z-]+)`", PAGE)) <= recipes
    places = [ROOT, ROOT / "src" / "shadowmmu"]
    for name in re.findall(r"`((?:[\w-]+/)+[\w.-]*)`", PAGE.replace("guests/NAME.asm", "guests/pae.asm")):
        assert any((place / name).exists() for place in (*places, ROOT / "src/shadowmmu/engine")), name
