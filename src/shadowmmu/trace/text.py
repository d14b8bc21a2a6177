# SPDX-License-Identifier: GPL-2.0-only
"""The text form: one line an event, the kernel's names, numbers in hexadecimal. Made to be read, searched and compared.

    kvm_mmu_get_page gfn=18 role=3712 mmu_valid_gen=0 root_count=0 unsync=0 created=1   # l2 4-byte q0 wux efer_nx cr0_wp

What stands behind `#` is meaning added for readers; `parse` does not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shadowmmu.border.files import parsing
from shadowmmu.border.plain import plain
from shadowmmu.engine.arena.role import describe_role
from shadowmmu.trace.events import AnyEvent, Marker, Other
from shadowmmu.trace.kernel import CLASSES

DIGITS = 17
"""Of a number, its sign included."""
HEADER = "# shadowmmu trace, grammar 1"


def to_text(event: AnyEvent) -> str:
    """One line, without its end."""
    if isinstance(event, Marker):
        return f"## {plain(event.text)}"
    if isinstance(event, Other):
        return " ".join((_word(event.ev), *(f"{_word(k)}={_number(v)}" for k, v in event.fields.items())))
    words = [event.name]
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name == "vcpu" or (name == "spt" and not value):
            continue
        words.append(f"{name}={_number(value)}")
    if event.vcpu:
        words.append(f"vcpu={event.vcpu}")
    role = getattr(event, "role", None)
    return " ".join(words) + (f"   # {describe_role(role)}" if role is not None else "")


def _number(value: Any) -> str:
    if isinstance(value, bytes | str):
        return value.hex() if isinstance(value, bytes) else _word(value)
    return f"{int(value):x}"


def _word(text: str) -> str:
    """As one word of a line."""
    return plain(text).replace(" ", "\\x20")


def from_text(line: str) -> AnyEvent | None:
    """The event of one line; None for blank lines and comments. Raises BadInput."""
    if line.startswith("## "):
        return Marker(text=line[3:].rstrip("\n"))
    words = line.partition("   #")[0].split()
    if not words or words[0].startswith("#"):
        return None
    with parsing(f"the trace's line {line[:80]!r}", "write the trace anew with this version"):
        name, fields = words[0], dict(map(_field, words[1:]))
        if name not in CLASSES or name == "other":
            return Other(ev=name, fields={k: _guess(v) for k, v in fields.items()})
        return CLASSES[name](**{field: _value(field, text) for field, text in fields.items()})  # type: ignore[return-value]


def _field(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"{word[:40]!r} is no field=value")
    return name, text


def _value(field: str, text: str) -> Any:
    if field == "insn":
        return bytes.fromhex(text)
    if field in ("unsync", "created", "spurious", "fixed", "nested"):
        return text == "1"
    if len(text) > DIGITS:
        raise ValueError(f"{field} has {len(text)} digits, no number of the kernel's has more than {DIGITS}")
    return int(text, 10 if field == "vcpu" else 16)


def _guess(text: str) -> int | str:
    try:
        return int(text, 16)
    except ValueError:
        return text


def text_lines(events: Iterable[AnyEvent]) -> Iterator[str]:
    """A whole trace, line by line without their ends."""
    yield HEADER
    yield from map(to_text, events)


def read_text(text: str) -> Iterator[AnyEvent]:
    """Raises BadInput at the first line that is none of a trace's."""
    for line in text.splitlines():
        event = from_text(line)
        if event is not None:
            yield event
