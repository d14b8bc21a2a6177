# SPDX-License-Identifier: GPL-2.0-only
"""Debian's 6.1 kernel and busybox, out of their packages: nothing is installed, nothing is compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from kit.errors import KitError, call, program

KERNEL = re.compile(r"linux-image-6\.1\.0-(\d+)-amd64")
BUSYBOX = "busybox-static"
MODULES = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
    "virt/lib/irqbypass", "drivers/crypto/ccp/ccp", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-amd",
)  # fmt: skip
"""What is loaded, in this order: a disk to write to, and KVM with what it needs."""


def fetch(folder: Path, cache: Path | None) -> list[Path]:
    """Fill `folder` with vmlinuz, the modules and busybox; packages come from `cache`, or from apt, and stay in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kernel = _package(folder, cache, "linux-image-6.1.0-*-amd64", _newest_kernel)
    busybox = _package(folder, cache, BUSYBOX, lambda: BUSYBOX)
    _unpack(kernel, {"boot/vmlinuz-": "vmlinuz"} | {f"/kernel/{module}.ko": f"{Path(module).name}.ko" for module in MODULES}, folder)
    _unpack(busybox, {"bin/busybox": "busybox"}, folder)
    return [kernel, busybox]


def _package(folder: Path, cache: Path | None, pattern: str, name: Callable[[], str]) -> Path:
    for place in (folder, cache):
        found = sorted(place.glob(pattern + "_*.deb")) if place else []
        if found:
            return found[-1]
    call([program("apt-get", "apt"), "download", name()], "run apt-get update, or give the .deb files by --cache", folder)
    return sorted(folder.glob(pattern + "_*.deb"))[-1]


def _newest_kernel() -> str:
    """The newest 6.1 kernel that apt knows."""
    listed = call([program("apt-cache", "apt"), "pkgnames", "linux-image-6.1.0-"], "run apt-get update")
    found = [match for line in listed.splitlines() if (match := KERNEL.fullmatch(line.strip()))]
    if not found:
        raise KitError(
            "apt knows no linux-image-6.1.0-*-amd64 (Debian 12's kernel): run apt-get update on Debian 12, "
            "or download its .deb from snapshot.debian.org and give its folder by --cache"
        )
    return max(found, key=lambda match: int(match[1]))[0]


def _unpack(package: Path, wanted: dict[str, str], folder: Path) -> None:
    """Copy the members whose path holds a key of `wanted` to the file its value names."""
    missing = dict(wanted)
    with subprocess.Popen([program("dpkg-deb", "dpkg"), "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        try:
            with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
                for member in archive:
                    key = next((key for key in missing if key in member.name and member.isfile()), None)
                    content = archive.extractfile(member) if key is not None else None
                    if key is None or content is None:
                        continue
                    with (folder / missing.pop(key)).open("wb") as file:
                        shutil.copyfileobj(content, file)
        except tarfile.TarError as error:
            raise KitError(f"{package} cannot be read ({error}): delete it, and fetch again") from error
    if missing:
        raise KitError(f"{package} has no {next(iter(missing))}: give a Debian 12 package")
