# SPDX-License-Identifier: GPL-2.0-only
"""Builds the runner, and the archives that the kernel unpacks as its first file system.

A kernel takes several cpio archives one behind the other (Documentation/driver-api/early-userspace/buffer-format.rst):
one holds the system, built once, and a second the guests of one run.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from kit.errors import KitError, call, program
from kit.kernels import Kernel

SOURCES = ("runner.c", "slots.c", "trace.c", "observe.c", "steps.c", "handlers.c",
           "guest_tables.c")  # fmt: skip
FOLDER, FILE = 0o040755, 0o100755
"""File types and permissions of an archive's members, as `st_mode`."""


def build(source: Path, packages: Path, kernel: Kernel, target: Path) -> None:
    """Compile the runner out of `source` and write the system's archive, `target`."""
    if not (packages / "vmlinuz").is_file() or not (packages / "busybox").is_file():
        raise KitError(f"no kernel or no busybox in {packages}: run capture.py fetch --kernel {kernel.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    runner = target.parent / "runner"
    sources = [str(source / name) for name in SOURCES]
    remedy = "apt install gcc libc6-dev (the runner is linked statically)"
    call([program("gcc", "gcc"), "-O1", "-g", "-Wall", "-Wextra", "-static", "-o", str(runner), *sources], remedy)
    modules = [f"{Path(module).name}.ko" for module in kernel.modules]
    members = {
        "init": (source / "init").read_bytes(),
        "runner": runner.read_bytes(),
        "bin/busybox": (packages / "busybox").read_bytes(),
        "probes": "".join(f"{probe}\n" for probe in kernel.probes).encode(),
        "modules/order": "".join(f"/modules/{name}\n" for name in modules).encode(),
    } | {f"modules/{name}": (packages / name).read_bytes() for name in modules}
    write_archive(target, members)


def write_archive(target: Path, members: dict[str, bytes]) -> None:
    """A compressed cpio archive of files, by path; their folders are made. The same members give the same bytes."""
    target.write_bytes(gzip.compress(b"".join(_archive(members)), compresslevel=1, mtime=0))


def _archive(members: dict[str, bytes]) -> Iterator[bytes]:
    folders = sorted({str(parent) for path in members for parent in Path(path).parents} - {"."})
    for number, folder in enumerate(folders, 1):
        yield _member(number, folder, FOLDER, b"")
    for number, (path, content) in enumerate(members.items(), 1 + len(folders)):
        yield _member(number, path, FILE, content)
    yield _member(0, "TRAILER!!!", 0, b"")


def _member(number: int, path: str, mode: int, content: bytes) -> bytes:
    """One member in the "newc" form: a header of 13 hexadecimal fields, the name, the content, each to a multiple of 4."""
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(header) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
