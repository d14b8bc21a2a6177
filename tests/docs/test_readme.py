# SPDX-License-Identifier: GPL-2.0-only
"""What the README and the docs say is run or looked up here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    assert len(example.splitlines()) <= 25
    exec(compile(example, "README.md", "exec"), {})
    assert "special 0x0 l3" in capsys.readouterr().out


def test_the_recipes_of_the_readme_exist() -> None:
    recipes = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {name for block in blocks("sh") for name in re.findall(r"^make ([a-z]+)", block, flags=re.M)}
    assert {"run", "test"} <= named <= recipes


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_the_docs_name_exist(path: Path) -> None:
    """A path in back quotes that ends in .py, .pxd or .md is relative to the repository, the package or the engine."""
    places = [ROOT, ROOT / "src/shadowmmu", ROOT / "src/shadowmmu/engine"]
    for name in re.findall(r"`([\w/.-]+\.(?:py|pxd|md))\b", path.read_text()):
        assert any((place / name).exists() for place in places), f"{path.name} names {name}, which is not there"


def test_as_many_captures_as_the_readme_counts() -> None:
    readme = (ROOT / "README.md").read_text()
    shipped = len(list((ROOT / "tests/conformance/captures").glob("*/*.capture")))
    told = re.findall(r"(\d+) captures of the shadow MMU|(\d+) of (\d+) captures replay", readme)
    assert {int(number) for numbers in told for number in numbers if number} == {shipped}
    ((rerun, events),) = re.findall(r"guests of (\d+) of these captures.*?([\d,]+) events alike", readme, flags=re.S)
    assert (
        f"✔ {rerun} of {rerun} guests do here what they did on the real kernel, {events} events equal"
        in (ROOT / "docs/rerun.md").read_text()
    )


def test_figures_of_the_readme_are_those_of_the_last_benchmarks() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    table = (ROOT / "README.md").read_text().partition("| work | figure |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) >= 12
    for row in rows:
        assert row in page, f"{row} is not in docs/benchmarks.md"
