"""The text form: one line an event, the kernel's names, numbers in hexadecimal. Made to be read, searched and compared.

    kvm_mmu_get_page gfn=18 role=3712 mmu_valid_gen=0 root_count=0 unsync=0 created=1   # l2 4-byte q0 wux efer_nx cr0_wp

What stands behind `#` is meaning added for readers; `parse` does not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shadowmmu.engine.arena.role import describe_role
from shadowmmu.trace.events import AnyEvent, Marker, Other
from shadowmmu.trace.kernel import CLASSES

HEADER = "# shadowmmu trace, grammar 1"


def to_text(event: AnyEvent) -> str:
    """One line, without its end."""
    if isinstance(event, Marker):
        return f"## {event.text}"
    if isinstance(event, Other):
        return " ".join((event.ev, *(f"{k}={_number(v)}" for k, v in event.fields.items())))
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
        return value.hex() if isinstance(value, bytes) else value
    return f"{int(value):x}"


def from_text(line: str) -> AnyEvent | None:
    """The event of one line; None for blank lines and comments."""
    if line.startswith("## "):
        return Marker(text=line[3:].rstrip("\n"))
    words = line.partition("   #")[0].split()
    if not words or words[0].startswith("#"):
        return None
    name, fields = words[0], dict(word.split("=", 1) for word in words[1:])
    if name not in CLASSES:
        return Other(ev=name, fields={k: _guess(v) for k, v in fields.items()})
    values: dict[str, Any] = {}
    for field, text in fields.items():
        if field == "insn":
            values[field] = bytes.fromhex(text)
        elif field in ("unsync", "created", "spurious", "fixed", "nested"):
            values[field] = text == "1"
        elif field == "vcpu":
            values[field] = int(text)
        else:
            values[field] = int(text, 16)
    return CLASSES[name](**values)  # type: ignore[return-value]


def _guess(text: str) -> int | str:
    try:
        return int(text, 16)
    except ValueError:
        return text


def write_text(events: Iterable[AnyEvent]) -> str:
    """A whole trace."""
    return "\n".join((HEADER, *map(to_text, events))) + "\n"


def read_text(text: str) -> Iterator[AnyEvent]:
    for line in text.splitlines():
        event = from_text(line)
        if event is not None:
            yield event
