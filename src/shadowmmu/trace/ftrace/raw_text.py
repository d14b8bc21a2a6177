# SPDX-License-Identifier: GPL-2.0-only
"""Events as their fields, `gfn=0x3a role=3712 created=1`: trace-cmd report -R and -N, and our own text form."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.kernel import CLASSES, physical
from shadowmmu.trace.layouts import fixed_and_spurious, layout_of

_FIELD = re.compile(r"\b(\w+)=(\(null\)|0x[0-9a-fA-F]{1,16}|-?\d{1,20}|[0-9a-f]{1,16})(?=[\s,]|$)")
_BYTES = re.compile(r"\binsn=ARRAY\[([0-9a-f, ]{2,80})\]")
_HEXADECIMAL = frozenset((
    "addr", "pferr", "pte", "gpa", "gfn", "pfn", "spte", "sptep", "old_spte", "new_spte", "cr2_or_gpa", "access", "gen", "kvm_gen",
    "spte_gen", "rip", "csbase", "ecx", "mmu_used_pages",
))  # fmt: skip
"""Fields that the kernel's `print fmt` has in hexadecimal: trace-cmd -R follows it, where it understands it, and adds no 0x."""
_NOT_UNDERSTOOD = ("kvm_mmu_get_page", "kvm_mmu_sync_page", "kvm_mmu_unsync_page", "kvm_mmu_prepare_zap_page")
"""Events whose `print fmt` is more than trace-cmd understands: there it prints plain numbers."""
_OLDER = {"created": True, "unsync": False, "mmu_valid_gen": 0, "root_count": 0, "gen": 0, "mmu_used_pages": 0, "spt": 0,
          "info1": 0, "info2": 0, "guest_rip": 0, "rip": 0}  # fmt: skip
"""Fields that a form lacks, or that an older kernel does not have."""


def _number(field: str, text: str, follows: bool) -> int:
    """`follows`: the number is written as the `print fmt` says."""
    if text == "(null)":
        return 0
    if text.startswith(("0x", "-")):
        return int(text, 0)
    plain = text.isdecimal() and not (len(text) > 1 and text[0] == "0") and not (follows and field in _HEXADECIMAL)
    return int(text) if plain else int(text, 16)


def read_fields(name: str, text: str, version: tuple[int, int]) -> AnyEvent | None:
    """The event; None if the text is not fields, or not all of its fields."""
    follows = name not in _NOT_UNDERSTOOD and "[FAILED TO PARSE]" not in text
    told: dict[str, Any] = {field: _number(field, value, follows) for field, value in _FIELD.findall(text)}
    cls = CLASSES.get(name)
    if not told or cls is None:
        return None
    if "vcpu_id" in told:
        told["vcpu"] = told["vcpu_id"]
    if "role" in told:
        told["role"] = layout_of(version).role(told["role"])
    if "sptep" in told:
        told["sptep"] = physical(told["sptep"])
    if cls is e.FastPageFault:
        _fast(told, version)
    if cls is e.EmulateInsn and (found := _BYTES.search(text)):
        told["insn"] = bytes.fromhex(found[1].replace(",", ""))[: told.get("len", 15)]
    values = {field: told.get(field, _OLDER.get(field)) for field in cls.__struct_fields__ if field != "vcpu" or field in told}
    if None in values.values():
        return None
    for flag in ("unsync", "created", "spurious", "fixed"):
        if flag in values:
            values[flag] = bool(values[flag])
    return msgspec.convert(values, cls)  # type: ignore[return-value]


def _fast(told: dict[str, Any], version: tuple[int, int]) -> None:
    """`ret` is RET_PF_*, whose numbers changed; kernels before 5.16 have `retry` instead."""
    fixed, spurious = fixed_and_spurious(version)
    if "ret" in told:
        told["spurious"], told["fixed"] = int(told["ret"] == spurious), int(told["ret"] == fixed)
    elif "retry" in told:
        told["spurious"], told["fixed"] = 0, told["retry"]
