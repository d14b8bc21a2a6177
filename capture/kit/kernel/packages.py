# SPDX-License-Identifier: GPL-2.0-only
"""The packages that the kernel of `fetch` was built from, in its very version; extracted, never installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kit.archive import Archive, archive
from kit.errors import KitError, call, program
from kit.fetch import kept
from kit.kernels import Kernel

OLD_KBUILD = "linux-kbuild-6.1"
"""Programs of the build. In 6.1 one package is for all versions, and what they make does not depend on their own."""
SNAPSHOT = "get it from snapshot.debian.org and give its folder by --cache, or empty the packages folder and fetch a newer kernel"


class Packages(NamedTuple):
    """What a build needs."""

    series: str
    """As in linux-source-6.1."""
    kernel: str
    """The kernel's release, as 6.1.0-56-amd64."""
    version: str
    """Debian's version of it."""
    headers: Path
    common: Path
    kbuild: Path
    source: Path
    compiler: tuple[Path, ...]
    """With its libraries; none if Debian 12's own is used."""


class _Places:
    """Where packages are looked for: in folders, then in the archive."""

    def __init__(self, folder: Path, cache: Path | None, kernel: Kernel) -> None:
        self.folder, self.kernel = folder, kernel
        self.held = [place for place in (folder, cache) if place is not None]
        self._archive: Archive | None = None

    @property
    def archive(self) -> Archive:
        """Asked only if something is missing."""
        if self._archive is None:
            self._archive = archive(self.folder, self.kernel.source)
        return self._archive

    def find(self, name: str, version: str) -> Path | None:
        """The newest of that version, which may be a pattern."""
        pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
        return next((path for place in self.held for path in sorted(place.glob(pattern), reverse=True)), None)

    def get(self, name: str, version: str) -> Path:
        return self.find(name, version) or self._download(name, version)

    def any(self, name: str, version: str) -> Path:
        """Of this version if there is one."""
        return self.find(name, version) or self.find(name, "*") or self._download(name, self._offered(name, version))

    def _offered(self, name: str, version: str) -> str:
        offered = self.archive.versions(name)
        return version if version in offered or not offered else offered[0]

    def _download(self, name: str, version: str) -> Path:
        offered = self.archive.versions(name)
        if version not in offered:
            has = f"has {', '.join(offered)}" if offered else "does not know it"
            raise KitError(f"the archive has moved on: the kernel needs {name} {version}, and apt {has}; {SNAPSHOT}")
        self.archive.download(f"{name}={version}")
        found = self.find(name, version)
        if found is None:
            raise KitError(f"apt-get left no {name}_{version} in {self.folder}: {SNAPSHOT}")
        return found

    def compiler(self) -> tuple[Path, ...]:
        """The packages of the kernel's compiler."""
        target, coming = self.folder / "compiler", self.folder / "compiler.coming"
        if self.kernel.compiler and not target.is_dir():
            self.archive.download_with_all(self.kernel.compiler, coming)
            coming.rename(target)
        return tuple(sorted(target.glob("*.deb")))


def fetch(folder: Path, kernel: Kernel, cache: Path | None) -> Packages:
    """Those of the kernel that is in `folder`, from there, from `cache` or by apt; they stay in `folder`."""
    image = kept(kernel.packages[0], folder, cache)
    if image is None or not (folder / "vmlinuz").is_file():
        raise KitError(f"no package of Linux {kernel.name} in {folder}: run capture.py fetch --kernel {kernel.name}")
    release = re.sub(r"^linux-(image|binary)-", "", image.name.split("_")[0])
    version = call([program("dpkg-deb", "dpkg"), "--field", str(image), "Version"], "fetch the kernel again").strip()
    flavourless = release.removesuffix("-amd64")
    places = _Places(folder, cache, kernel)
    return Packages(
        kernel.name,
        release,
        version,
        headers=places.get(f"linux-headers-{release}", version),
        common=places.get(f"linux-headers-{flavourless}-common", version),
        kbuild=places.any(OLD_KBUILD, version) if kernel.name == "6.1" else places.get(f"linux-kbuild-{flavourless}", version),
        source=places.get(f"linux-source-{kernel.name}", version),
        compiler=places.compiler(),
    )
