# SPDX-License-Identifier: GPL-2.0-only
"""Reads events of a Linux kernel, decoded from its ring buffer into dictionaries of fields, as this grammar's events."""

from __future__ import annotations

from typing import Any

import msgspec

from shadowmmu.trace.events import AnyEvent, FastPageFault, FreeRoots, InvalidateGva, Marker, MmuPageFaultRet, Other
from shadowmmu.trace.forms import ALL_ROOTS, CURRENT_ONLY, FORMS, Form

DIRECT_MAPS = ((0xFFFF_8880_0000_0000, 0xFFFF_C880_0000_0000), (0xFF11_0000_0000_0000, 0xFF91_0000_0000_0000))
"""Where the kernel sees all physical memory, with 4 and with 5 levels of its own paging (Documentation/x86/x86_64/mm.rst)."""
CLASSES: dict[str, type[msgspec.Struct]] = {str(c.__struct_config__.tag): c for c in AnyEvent.__args__}
_KNOWN = {name: frozenset(cls.__struct_fields__) for name, cls in CLASSES.items()}


def physical(address: int) -> int:
    """The physical address behind a pointer of the kernel's direct map; other addresses as they are."""
    for low, high in DIRECT_MAPS:
        if low <= address < high:
            return address - low
    return address


def from_kernel(fields: dict[str, Any], form: Form = FORMS["6.1"]) -> AnyEvent:
    """One event from its fields, as the kernel of `form` writes them; `ev` is its name, `role` a word or a dictionary with a `word`."""
    name = str(fields["ev"])
    if name == "print":
        return Marker(text=str(fields["text"]))
    if name not in CLASSES or name == "other":
        return Other(ev=name, fields={k: v for k, v in fields.items() if k not in ("ev", "sys", "ts") and isinstance(v, int | str)})
    values = {k: v for k, v in fields.items() if k in _KNOWN[name]}
    if "vcpu_id" in fields:
        values["vcpu"] = fields["vcpu_id"]
    if "role" in values and isinstance(values["role"], dict):
        values["role"] = values["role"]["word"]
    if "role" in values:
        values["role"] = form.to_role(values["role"])
    if "sptep" in values:
        values["sptep"] = physical(values["sptep"])
    for flag in ("unsync", "created"):
        if flag in values:
            values[flag] = bool(values[flag])
    if name == "kvm_emulate_insn":
        values["insn"] = bytes.fromhex(values["insn"])
    _to_grammar(CLASSES[name], fields, values, form)
    return CLASSES[name](**values)  # type: ignore[return-value]


def _to_grammar(kind: type[msgspec.Struct], fields: dict[str, Any], values: dict[str, Any], form: Form) -> None:
    """Put what kernels write in different ways into the grammar's."""
    if kind is FastPageFault:
        values["spurious"], values["fixed"] = fields["ret"] == form.spurious, fields["ret"] == form.fixed
    elif kind is FreeRoots and values["roots"] == form.all_roots:
        values["roots"] = ALL_ROOTS
    elif kind is InvalidateGva and form.masks_roots:
        values["root"] = ALL_ROOTS if values["root"] == form.all_roots else CURRENT_ONLY
    elif kind is MmuPageFaultRet and form.returns_code:
        values["ret"] = min(values["ret"], 1)
