# SPDX-License-Identifier: GPL-2.0-only
"""Debian's archive, by apt with a configuration of the kit's own: no suite is added to the machine's, nothing is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kit.errors import call, program

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
REMEDY = "is the network there? Or give the .deb files by --cache; those of old kernels are on snapshot.debian.org"


class Archive(NamedTuple):
    """What a kernel's suites have, and the folder that packages are put into."""

    folder: Path
    options: tuple[str, ...]

    def names(self) -> list[str]:
        """Of every package."""
        return call([program("apt-cache", "apt"), *self.options, "pkgnames"], REMEDY).split()

    def versions(self, name: str) -> list[str]:
        """Of one package, the newest first."""
        listed = call([program("apt-cache", "apt"), *self.options, "madison", name], REMEDY)
        return [match[1] for line in listed.splitlines() if (match := re.match(r"\s*\S+ \| +(\S+) \|", line))]

    def download(self, package: str) -> None:
        """NAME, or NAME=VERSION."""
        call([program("apt-get", "apt"), *self.options, "download", "-qq", package], REMEDY, self.folder)

    def download_with_all(self, packages: tuple[str, ...], target: Path) -> None:
        """Packages and all that they depend on, as for a machine that has nothing."""
        (target / "partial").mkdir(parents=True, exist_ok=True)
        alone = ("-o", f"Dir::Cache::archives={target.resolve()}", "-o", "Dir::State::status=/dev/null", "-o", "APT::Install-Recommends=0")
        call([program("apt-get", "apt"), *self.options, *alone, "install", "-qq", "--yes", "--download-only", *packages], REMEDY)


def archive(folder: Path, suites: tuple[str, ...]) -> Archive:
    """Of these suites (lines of a sources.list), as they are today; what it knows of them is kept in `folder`/apt."""
    place = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (place / part).mkdir(parents=True, exist_ok=True)
    (place / "sources.list").write_text("".join(f"deb [arch=amd64 signed-by={KEYRING}] {suite}\n" for suite in suites))
    told = {
        "Dir::Etc::sourcelist": (place / "sources.list").resolve(),
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": (place / "lists").resolve(),
        "Dir::Cache": (place / "cache").resolve(),
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }
    found = Archive(folder, tuple(word for name, value in told.items() for word in ("-o", f"{name}={value}")))
    call([program("apt-get", "apt"), *found.options, "update", "-qq"], REMEDY, folder)
    return found
