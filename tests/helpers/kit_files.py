# SPDX-License-Identifier: GPL-2.0-only
"""Writes a capture as the capture kit does, for tests of its reader."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec

from shadowmmu.captures.capture import Capture, Dump
from shadowmmu.trace import events as e

CPUID = """00000001.0 00060fb1 00000800 76f83203 0f8bfbfd
00000007.0 00000000 019803ab 00000204 20000000
80000001.0 00060fb1 00000000 00000075 efd3fbfd
80000008.0 00003028 04000000 00000000 00000000
"""


def as_kernel(event: e.AnyEvent) -> dict[str, object]:
    """The dictionary that the kit's decoder gives for an event."""
    if isinstance(event, e.Marker):
        return {"ev": "print", "text": event.text}
    if isinstance(event, e.Other):
        return {"ev": event.ev, **event.fields}
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name not in ("vcpu", "spt")}
    if isinstance(event, e.EmulateInsn):
        fields["insn"] = event.insn.hex()
    if isinstance(event, e.FastPageFault):
        fields["ret"] = 5 if event.spurious else 4 if event.fixed else 3
    if "role" in fields:
        fields["role"] = {"word": fields["role"]}
    return {"ev": event.name, **fields}


def write_kit(capture: Capture, place: Path) -> Path:
    """Write `capture` below `place`; returns its set's folder."""
    name, folder, guests = capture.guest.name, place / "captures" / capture.set, place / "guests" / capture.set
    folder.mkdir(parents=True)
    guests.mkdir(parents=True)
    described = msgspec.to_builtins(capture.guest)
    described["image"] = []
    for gpa, data in capture.image:
        file = f"{name}.{gpa:x}.bin"
        (guests / file).write_bytes(data)
        described["image"].append({"gpa": gpa, "file": file, "size": len(data)})
    (guests / f"{name}.json").write_text(json.dumps(described))
    lines = "\n".join(json.dumps(as_kernel(event)) for event in capture.events)
    (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    dumps = "".join(
        f"DUMP seq={d.seq} tag={d.tag} root={d.root:x} level={d.level}\n"
        + "".join(f" L{d.level} {table:x} nothing={value:x}\n" for table, value in _nothing(d).items())
        + "".join(f" L{x.level} {x.table:x}[{x.index:03x}] = {x.value:x}\n" for x in d.entries)
        for d in capture.dumps
    )
    (folder / f"{name}.spt.txt").write_text(dumps)
    stats = "".join(f"STATS seq={c.seq} tag={c.tag}\n" + "".join(f" {k}={v}\n" for k, v in c.values.items()) for c in capture.counters)
    (folder / f"{name}.stats.txt").write_text(stats)
    frames = "".join(f"{gfn + i:x} {pfn + i:x} {slot}\n" for slot, gfn, pfn, count in capture.frames for i in range(count))
    (folder / f"{name}.pfn.txt.gz").write_bytes(gzip.compress(frames.encode()))
    (folder / "_kvm_params.txt").write_text("/sys/module/kvm/parameters/tdp_mmu=Y\n/sys/module/kvm_amd/parameters/npt=N\n")
    (folder / "_cpuinfo.txt").write_text("flags : fpu sse\naddress sizes\t: 40 bits physical, 48 bits virtual\n")
    (folder / f"{name}.cpuid.txt").write_text(CPUID)
    (folder / "_uname.txt").write_text(capture.setup.kernel + "\n")
    if capture.setup.roots:
        (folder / "_roots.txt").write_text(capture.setup.roots + "\n")
    return folder


def _nothing(dump: Dump) -> dict[int, int]:
    """What the kit tells of each table, if it tells it at all."""
    return {} if dump.nothing is None else {dump.root: 0} | dump.nothing
