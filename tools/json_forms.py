# SPDX-License-Identifier: GPL-2.0-only
"""The forms that `--json` prints, as docs/json.md lists them: drawn from the types, and held to what a version promised.

Within a version things may be added. What a form had, it has: --write refuses to drop or to change a line of one whose
version is the same.

Example: python tools/json_forms.py --write
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shadowmmu.cli.bugs import BugsReport
from shadowmmu.cli.captures import Captures
from shadowmmu.cli.export import ExportReport
from shadowmmu.cli.guests import Guests
from shadowmmu.cli.replay import Replays
from shadowmmu.cli.rerun import Reruns
from shadowmmu.cli.show import Shown
from shadowmmu.look.data import Hex
from shadowmmu.runs.compare import Comparison
from shadowmmu.runs.compare_engines import EngineComparison
from shadowmmu.runs.compare_kernels import KernelComparison
from shadowmmu.runs.exercised.best import Exercised
from shadowmmu.runs.explained.explanation import Explanation
from shadowmmu.runs.fuzz_report import FuzzReport
from shadowmmu.runs.guest_run import RunReport
from shadowmmu.runs.stepped import Steps
from shadowmmu.runs.suite.run_suite import SuiteReport

PAGE = Path(__file__).resolve().parents[1] / "docs" / "json.md"
FORMS: dict[str, type] = {
    "shadowmmu.run/1": RunReport,
    "shadowmmu.run.suite/1": SuiteReport,
    "shadowmmu.show/1": Shown,
    "shadowmmu.step/1": Steps,
    "shadowmmu.compare/1": Comparison,
    "shadowmmu.compare.engines/1": EngineComparison,
    "shadowmmu.compare.kernels/1": KernelComparison,
    "shadowmmu.explain/1": Explanation,
    "shadowmmu.fuzz/1": FuzzReport,
    "shadowmmu.export/1": ExportReport,
    "shadowmmu.bugs/1": BugsReport,
    "shadowmmu.replay/1": Replays,
    "shadowmmu.rerun/1": Reruns,
    "shadowmmu.guests/1": Guests,
    "shadowmmu.captures/1": Captures,
    "shadowmmu.tests/1": Exercised,
}
EVENT = "event"
"""The field that every event has, and the word for any of them."""


def form(name: str) -> list[str]:
    """The lines of one form: each object with its fields, itself first."""
    (top,), parts = msgspec.json.schema_components([FORMS[name]], schema_hook=_hex)
    first = top["$ref"].rpartition("/")[2]
    order = [first, *(part for part in parts if part != first and not _is_event(parts[part]) and "properties" in parts[part])]
    return [line for part in order for line in _object(part if part != first else name, parts[part], parts)]


def _object(name: str, part: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    yield name
    for field, schema in part["properties"].items():
        may_lack = "" if field in part.get("required", ()) or "default" in schema else "?"
        yield f"    {field}{may_lack}: {_words(schema, parts)}"


def _words(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    """A type in few words."""
    if "$ref" in schema:
        part = parts[schema["$ref"].rpartition("/")[2]]
        return EVENT if _is_event(part) else part["title"] if "properties" in part else _words(part, parts)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(word for one in schema["anyOf"] for word in _words(one, parts).split(" or ")))
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if schema.get("type") == "array":
        inside = schema.get("prefixItems") or [schema["items"]]
        return f"[{', '.join(_words(one, parts) for one in inside)}]"
    if schema.get("type") == "object":
        return f"{{string: {_words(schema['additionalProperties'], parts)}}}"
    return str(schema.get("format") or schema.get("type", "anything"))


def _is_event(part: dict[str, Any]) -> bool:
    return EVENT in part.get("properties", ())


def _hex(kind: type) -> dict[str, Any]:
    if kind is Hex:
        return {"type": "string", "format": "hex"}
    raise NotImplementedError(kind)


# --- the page


def listed(page: str) -> dict[str, list[str]]:
    """The forms as a page has them."""
    blocks = re.findall(r"^```text\n(shadowmmu\.[\w.]+/\d+)\n(.*?)^```", page, flags=re.M | re.S)
    return {name: [name, *lines.splitlines()] for name, lines in blocks}


def broken_promises(before: dict[str, list[str]], now: dict[str, list[str]]) -> list[str]:
    """What a version had and has no more. A field may get further words, as of another type that it can have.

    What an object is called is not printed, and no promise.
    """
    return [
        promise
        for name in sorted(before.keys() & now.keys())
        for promise in _broken(name, _objects(before[name]), name, _objects(now[name]), frozenset())
    ]


Objects = dict[str, dict[str, str]]
"""Object -> field -> the words of its type."""


def _objects(lines: list[str]) -> Objects:
    objects: Objects = {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, words = line.strip().partition(": ")
        if line.startswith(" "):
            fields[name] = words
        else:
            fields = objects[name] = {}
    return objects


def _broken(name: str, before: Objects, new_name: str, now: Objects, seen: frozenset[str]) -> Iterator[str]:
    """Of one object and those inside it."""
    for field, words in before[name].items():
        new_words = now[new_name].get(field, "")
        if not _shape(words, before) <= _shape(new_words, now):
            yield f"{name} {field}: {words}"
            continue
        inside = zip(_named(words, before), _named(new_words, now), strict=False)
        for part, new_part in inside:
            if part not in seen:
                yield from _broken(part, before, new_part, now, seen | {part})


def _named(words: str, objects: Objects) -> list[str]:
    """The objects that a type has."""
    return [word for word in re.findall(r"\w+", words) if word in objects]


def _shape(words: str, objects: Objects) -> set[str]:
    """A type's words, with no object's name."""
    return set(re.sub(r"\w+", lambda word: "object" if word[0] in objects else word[0], words).split(" or "))


def written(page: str) -> str:
    """The page with every form as the types have it; one that is new comes last."""
    for name in FORMS:
        block = "```text\n" + "\n".join(form(name)) + "\n```"
        verb = name.rpartition("/")[0]
        found = re.search(rf"^```text\n{verb}/\d+\n.*?^```", page, flags=re.M | re.S)
        page = page.replace(found[0], block) if found else f"{page.rstrip()}\n\n## {verb.partition('.')[2]}\n\n{block}\n"
    return page


def main() -> int:
    page = PAGE.read_text()
    new = written(page)
    broken = broken_promises(listed(page), listed(new))
    if broken:
        print("\n".join(f"no longer so: {promise}; raise the version of the form, in FORMS and where it is printed" for promise in broken))
        return 1
    if "--write" in sys.argv[1:]:
        PAGE.write_text(new)
    return int(new != page and "--write" not in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
