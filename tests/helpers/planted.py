# SPDX-License-Identifier: GPL-2.0-only
"""Inputs in which sequences for terminals are planted: guests, captures, arguments."""

from __future__ import annotations

import lzma
from pathlib import Path

import msgspec

from shadowmmu.captures.find import find

PLANTED = "\x1b]0;title\x07\x1b[5;7mblink\x9b2J\x08\x0b\x7f\u202eright\u2066[bold][link=file:///]\x1b]52;c;aGk=\x07"
RAW = tuple(text.encode() for text in ("\x1b]", "\x1b[5;7m", "\x07", "\x08", "\x0b", "\x7f", "\x9b", "\u202e", "\u2066"))
"""What must not come out of it: our own output has none of these."""
NAME = "shadow/np32_dirty"


def printing(text: str, code: int) -> bytes:
    """32-bit code that prints a text and ends with an exit code: mov al, imm8; out port, al; hlt."""
    return b"".join(b"\xb0%c\xe6\xe9" % byte for byte in text.encode()) + b"\xb0%c\xe6\xf4\xf4" % code


def planted_guest(folder: Path, code: int = 0x10) -> Path:
    """Its name, title, last line and image's name are planted, and all it prints."""
    name = PLANTED.replace("/", "_")
    (folder / f"{name}.img").write_bytes(printing(PLANTED + "\n", code))
    text = {"name": name, "title": PLANTED, "image": f"{name}.img", "expect": PLANTED if code == 0x10 else "", "format": "flat"}
    path = folder / f"guest {name}.toml"
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in text.items()) + "load = 65536\nstart = 'protected'\n")
    return path


def _toml(text: str) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" if not c.isalnum() else c for c in text) + '"'


def planted_capture(folder: Path) -> Path:
    """Its set, its names, notes and markers are planted, and it diverges."""
    content = msgspec.msgpack.decode(lzma.decompress(find(NAME)[0].path.read_bytes()))
    content["set"] = content["guest"]["name"] = content["guest"]["desc"] = PLANTED
    content["setup"]["kernel"] += f" {PLANTED}"
    for op in content["guest"]["ops"]:
        op["note"] = PLANTED
    for dump in content["dumps"]:
        dump["tag"] = PLANTED
    events = content["events"]
    at = max(number for number, event in enumerate(events) if event["event"] == "kvm_mmu_set_spte")
    events[at : at + 1] = [{"event": "print", "text": PLANTED}, {"event": "other", "ev": PLANTED, "fields": {PLANTED: PLANTED}}]
    path = folder / (PLANTED.replace("/", "_") + ".capture")
    path.write_bytes(lzma.compress(msgspec.msgpack.encode(content), preset=0))
    return path
