# SPDX-License-Identifier: GPL-2.0-only
"""This machine's trace-cmd and perf, to be run in the captured kernel: what they print of a guest is what people bring."""

from __future__ import annotations

import re
from pathlib import Path

from kit.errors import KitError, call, program

TOOLS = {"trace-cmd": "trace-cmd", "perf": "linux-perf"}
"""Programs, and Debian's packages of them."""
PLUGINS = "traceevent/plugins/plugin_kvm.so"
"""libtraceevent's, which words some of KVM's events; trace-cmd and perf load it if it is there."""
PRINTED = ("report.txt", "raw.txt", "perf.txt", "perf-g.txt", "dat")
"""What the script `tools` leaves of a guest: trace-cmd report, the same with -R, perf script without and with call chains, trace.dat."""


def tools(source: Path) -> dict[str, bytes]:
    """The programs with all libraries that they need, and the script that has them record: paths in the captured system."""
    programs = [Path(program(name, package)) for name, package in TOOLS.items()]
    libraries = {path for one in programs for path in _libraries(one)}
    plugins = {path for library in libraries if (path := library.resolve().parent / PLUGINS).is_file()}
    members = {str(path).lstrip("/"): path.read_bytes() for path in sorted(libraries | plugins)}
    members |= {f"bin/{one.name}": one.read_bytes() for one in programs}
    return members | {"tools": (source / "tools").read_bytes()}


def _libraries(binary: Path) -> set[Path]:
    """By the path by which the loader looks for each, itself among them."""
    listed = call([program("ldd", "libc-bin"), str(binary)], "give a dynamically linked program of this machine")
    if "not found" in listed:
        raise KitError(f"{binary} lacks a library here: {listed.partition('not found')[0].split()[-2]}; install its package again")
    return {Path(path) for path in re.findall(r"(?:=> )?(/\S+) \(0x", listed)}
