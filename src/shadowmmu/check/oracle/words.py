# SPDX-License-Identifier: GPL-2.0-only
"""How the oracle says what it has seen."""

from collections.abc import Iterable

from shadowmmu.hardware.walk import FETCH, USER, WRITE


def access_words(access: int) -> str:
    mode = "user" if access & USER else "supervisor"
    return f"{mode} {'write' if access & WRITE else 'fetch' if access & FETCH else 'read'}"


def in_hex(values: Iterable[int | None]) -> str:
    return " ".join("none" if v is None else f"{v:#x}" for v in values)
