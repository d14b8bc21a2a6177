# SPDX-License-Identifier: GPL-2.0-only
"""A Debian kernel and busybox, out of their packages: nothing is installed, nothing is compiled."""

from __future__ import annotations

import lzma
import re
import subprocess
import tarfile
from pathlib import Path

from kit.archive import REMEDY, archive
from kit.errors import KitError, program
from kit.kernels import Kernel

BUSYBOX = "busybox-static"


def fetch(folder: Path, kernel: Kernel, cache: Path | None) -> list[Path]:
    """Fill `folder` with vmlinuz, the modules and busybox; packages come from `cache`, or by apt, and stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    patterns = (*kernel.packages, BUSYBOX)
    found = {pattern: kept(pattern, folder, cache) for pattern in patterns}
    missing = [pattern for pattern in patterns if found[pattern] is None]
    if missing and cache is not None and (others := [path.name for path in sorted(cache.glob("linux-*.deb"))]):
        raise KitError(f"{cache} has no package {missing[0]} of Linux {kernel.name}, but {others[0]}: give another --kernel, or no --cache")
    if missing:
        found |= _download(missing, folder, kernel)
    packages = [package for package in found.values() if package is not None]
    wanted = {r"/vmlinuz(-[^/]*)?$": "vmlinuz"}
    wanted |= {rf"/kernel/{module}\.ko(\.xz)?$": f"{Path(module).name}.ko" for module in kernel.modules}
    for package in packages[:-1]:
        _unpack(package, wanted, folder)
    if wanted:
        raise KitError(f"{packages[0].name} has no {next(iter(wanted.values()))}: give Debian's package of Linux {kernel.name}")
    busybox = {r"bin/busybox$": "busybox"}
    _unpack(packages[-1], busybox, folder)
    if busybox:
        raise KitError(f"{packages[-1].name} has no busybox: give Debian's busybox-static")
    return packages


def kept(pattern: str, folder: Path, cache: Path | None) -> Path | None:
    """The newest package of a pattern that is there already."""
    for place in (folder, cache):
        names = [(_order(match), path) for path in place.glob("*_*.deb") if (match := re.match(pattern + "_", path.name))] if place else []
        if names:
            return max(names)[1]
    return None


def _order(match: re.Match[str]) -> int:
    return int(match[1]) if match.groups() else 0


def _download(patterns: list[str], folder: Path, kernel: Kernel) -> dict[str, Path | None]:
    """Let apt fetch the newest package of each pattern, from the kernel's suites."""
    debian = archive(folder, kernel.source)
    listed = debian.names()
    for pattern in patterns:
        matches = [match for name in listed if (match := re.fullmatch(pattern, name))]
        if not matches:
            raise KitError(f"Debian has no {pattern} in {kernel.source[-1]}: {REMEDY}")
        debian.download(max(matches, key=_order)[0])
    return {pattern: kept(pattern, folder, None) for pattern in patterns}


def _unpack(package: Path, wanted: dict[str, str], folder: Path) -> None:
    """Copy the members whose path a key of `wanted` matches to the file its value names, and take them off the list."""
    with subprocess.Popen([program("dpkg-deb", "dpkg"), "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        try:
            with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
                for member in archive:
                    key = next((key for key in wanted if re.search(key, member.name) and member.isfile()), None)
                    content = archive.extractfile(member) if key is not None else None
                    if key is None or content is None:
                        continue
                    data = content.read()
                    (folder / wanted.pop(key)).write_bytes(lzma.decompress(data) if member.name.endswith(".xz") else data)
        except (tarfile.TarError, lzma.LZMAError) as error:
            raise KitError(f"{package} cannot be read ({error}): delete it, and fetch again") from error
