# SPDX-License-Identifier: GPL-2.0-only
"""The packages that the kernel of `fetch` was built from, in its very version; extracted, never installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kit.errors import KitError, call, program

KBUILD = "linux-kbuild-6.1"
"""Programs of the build: what they make does not depend on their own version."""
SNAPSHOT = "get it from snapshot.debian.org and give its folder by --cache, or empty the packages folder and fetch a newer kernel"


class Packages(NamedTuple):
    """What a build needs."""

    kernel: str
    """The kernel's release, as 6.1.0-56-amd64."""
    version: str
    """Debian's version of it."""
    headers: Path
    common: Path
    kbuild: Path
    source: Path


def fetch(folder: Path, cache: Path | None) -> Packages:
    """Those of the kernel in `folder`, from there, from `cache` or by apt; they stay in `folder`."""
    images = sorted(folder.glob("linux-image-6.1.0-*_*.deb"))
    if not images:
        raise KitError(f"no linux-image package in {folder}: run capture.py fetch")
    kernel = images[-1].name.split("_")[0].removeprefix("linux-image-")
    version = call([program("dpkg-deb", "dpkg"), "--field", str(images[-1]), "Version"], "fetch the kernel again").strip()
    places = [place for place in (folder, cache) if place is not None]

    def get(name: str) -> Path:
        return _held(places, name, version) or _download(folder, name, version)

    return Packages(
        kernel,
        version,
        headers=get(f"linux-headers-{kernel}"),
        common=get(f"linux-headers-{kernel.removesuffix('-amd64')}-common"),
        kbuild=_held(places, KBUILD, version) or _held(places, KBUILD, "*") or _download(folder, KBUILD, _offered(KBUILD, version)),
        source=get("linux-source-6.1"),
    )


def _held(places: list[Path], name: str, version: str) -> Path | None:
    pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
    return next((path for place in places for path in sorted(place.glob(pattern))), None)


def _download(folder: Path, name: str, version: str) -> Path:
    offered = versions(name)
    if version not in offered:
        has = f"has {', '.join(offered)}" if offered else "does not know it: run apt-get update, or"
        raise KitError(f"the archive has moved on: the kernel needs {name} {version}, and apt {has}; {SNAPSHOT}")
    call([program("apt-get", "apt"), "download", f"{name}={version}"], f"run apt-get update, or {SNAPSHOT}", folder)
    found = _held([folder], name, version)
    if found is None:
        raise KitError(f"apt-get left no {name}_{version} in {folder}: {SNAPSHOT}")
    return found


def _offered(name: str, version: str) -> str:
    """This version, or the newest there is."""
    offered = versions(name)
    return version if version in offered or not offered else offered[0]


def versions(name: str) -> list[str]:
    """What apt has of a package, the newest first."""
    listed = call([program("apt-cache", "apt"), "madison", name], "run apt-get update")
    return [match[1] for line in listed.splitlines() if (match := re.match(r"\s*\S+ \| +(\S+) \|", line))]
