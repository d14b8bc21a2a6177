# SPDX-License-Identifier: GPL-2.0-only
"""docs/json.md: the forms are as the page lists them, every verb prints what its form says, and a version keeps its promises."""

from __future__ import annotations

import json

import json_forms
import msgspec
import pytest

from shadowmmu.cli.main import VERBS, call
from shadowmmu.look.data import Hex

COMMANDS = [
    "run nonpaging --audit off", "show nonpaging --at 500 --rmaps", "show l1-pae --at 280 --l2 --address 0x1900000",
    "step nonpaging --at 500",
    "compare nonpaging",
    "explain shadow/p32_slots", "explain tests/conformance/texts/p32_slots.tracefs.txt.xz --count", "fuzz --operations 50",
    "export bugs/lists/dirty-not-marked.ops --to build/exported",
    "bugs flush-commit --hunts 1 --seconds 60", "replay shadow/p32_basic", "replay shadow/p32_basic --roots special",
    "rerun shadow/p32_basic nested_la57/n32_basic", "tests roots.py:fast_pgd_switch",
    "guests", "captures shadow",
]  # fmt: skip


def test_the_page_lists_the_forms_as_they_are() -> None:
    page = json_forms.PAGE.read_text()
    assert json_forms.written(page) == page, "run: python tools/json_forms.py --write"
    assert list(json_forms.listed(page)) == list(json_forms.FORMS)


def test_every_verb_has_a_form() -> None:
    tested = {command.split()[0] for command in COMMANDS}
    assert tested == {name.split(".")[1].partition("/")[0] for name in json_forms.FORMS} == set(VERBS) - {"completion"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_verb_prints_its_form(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*command.split(), "--json"]) == 0
    text, errors = capsys.readouterr()
    assert text.isascii() and not errors
    printed = json.loads(text)
    kind = json_forms.FORMS[printed.pop("schema")]
    value = msgspec.convert(printed, kind, dec_hook=_hex, strict=True)
    assert json.loads(msgspec.json.encode(value, enc_hook=hex)) == printed, "nothing that the form does not have"


def _hex(kind: type, value: object) -> object:
    assert kind is Hex and isinstance(value, str)
    return Hex(int(value, 16))


def test_a_promise_that_is_broken_is_named() -> None:
    before = {"shadowmmu.x/1": ["shadowmmu.x/1", "    a: integer", "    b: [Part]", "Part", '    c: "one" or "two"', "    d?: string"]}
    more = {"shadowmmu.x/1": [*before["shadowmmu.x/1"], "    e: string"]}
    more["shadowmmu.x/1"][4] = '    c: "one" or "three" or "two"'
    assert json_forms.broken_promises(before, more) == []
    renamed = {"shadowmmu.x/1": [line.replace("Part", "Piece") for line in before["shadowmmu.x/1"]]}
    assert json_forms.broken_promises(before, renamed) == [], "what an object is called is not printed"
    for at, line in ((1, "    a: string"), (2, "    bb: [Part]"), (4, '    c: "one"'), (5, "    d: string")):
        fewer = [line if number == at else kept for number, kept in enumerate(before["shadowmmu.x/1"])]
        assert len(json_forms.broken_promises(before, {"shadowmmu.x/1": fewer})) == 1
        assert json_forms.broken_promises(before, {"shadowmmu.x/2": fewer}) == []
