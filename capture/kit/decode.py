# SPDX-License-Identifier: GPL-2.0-only
"""What a run left -> `captures/<set>/NAME.*`, the form that `shadowmmu replay --kit` reads."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from kit.errors import KitError
from kit.kernels import RoleBits, kernel_of_release
from kit.normal import Normaliser
from kit.ringbuffer import Layout, read_events, read_layouts

OF_THE_SET = ("kvm_params", "cpuinfo", "uname", "cmdline")
"""What is the same for all guests of a run: kept once, as _NAME.txt."""
ROOTS = "roots"
"""The kernel's root design, likewise; runs of older kits do not say it."""


def decode(raw: Path, target: Path) -> dict[str, int]:
    """Decode all guests in `raw` into `target`; how many events each has."""
    names = sorted(path.name.removesuffix(".raw") for path in raw.glob("*.raw"))
    if not names:
        raise KitError(f"{raw} holds no run: run capture.py run {raw.name}")
    target.mkdir(parents=True, exist_ok=True)
    for name in (*OF_THE_SET, ROOTS) if (raw / f"{ROOTS}.txt").exists() else OF_THE_SET:
        shutil.copyfile(raw / f"{name}.txt", target / f"_{name}.txt")
    layouts = read_layouts(raw / "format")
    role = kernel_of_release((raw / "uname.txt").read_text()).role
    return {name: _decode_guest(raw, name, target, layouts, role) for name in names}


def _decode_guest(raw: Path, name: str, target: Path, layouts: dict[int, Layout], role: RoleBits) -> int:
    events = read_events((raw / f"{name}.raw").read_bytes(), layouts, role)
    text = (raw / f"{name}.trace.txt").read_bytes()
    in_text = sum(1 for line in text.splitlines() if line.strip() and not line.startswith(b"#"))
    if in_text != len(events):
        raise KitError(f"{name}: the kernel printed {in_text} events, the buffer gives {len(events)}: the trace was cut, run it again")
    frames = (raw / f"{name}.pfn.txt").read_text()
    _compress(target / f"{name}.jsonl.gz", "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode())
    _compress(target / f"{name}.pfn.txt.gz", frames.encode())
    _compress(target / f"{name}.trace.txt.gz", text)
    (target / f"{name}.norm.txt").write_text("\n".join(Normaliser(guest_frames(frames)).lines(events)) + "\n")
    for kind in ("spt", "stats", "cpuid"):
        shutil.copyfile(raw / f"{name}.{kind}.txt", target / f"{name}.{kind}.txt")
    return len(events)


def guest_frames(text: str) -> dict[int, int]:
    """Host frame -> guest frame, from lines "gfn pfn slot"; pages without a frame are left out."""
    rows = (line.split() for line in text.splitlines())
    return {int(pfn, 16): int(gfn, 16) for gfn, pfn, _ in rows if int(pfn, 16)}


def _compress(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, mtime=0))
