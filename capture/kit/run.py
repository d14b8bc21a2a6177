# SPDX-License-Identifier: GPL-2.0-only
"""Boots the kernel on QEMU's own CPU (TCG: no KVM of the machine is used), with the guests of one set."""

from __future__ import annotations

import re
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kit.errors import KitError, program
from kit.initramfs import write_archive

MEMORY_MIB = 1024
DISK_BYTES = 512 << 20
KERNEL_ARGUMENTS = (
    "console=ttyS0 nokaslr mitigations=off audit=0 selinux=0 apparmor=0 quiet loglevel=4 nowatchdog nmi_watchdog=0 "
    "random.trust_cpu=on panic=-1"
)
"""nokaslr: the dumps read the kernel's direct map at its known place. The rest keeps the console and the trace quiet."""
Report = Callable[[str], None]
"""Gets each line of the console."""
TIMEOUT = 900
"""Seconds for a boot and all guests; the runner gives a single guest 12."""


class Host(NamedTuple):
    """The machine that QEMU shows the captured kernel, and how its KVM is loaded."""

    npt: bool = False
    tdp_mmu: bool = True
    la57: bool = False
    """Five levels in the captured kernel's own tables, so in its nested page tables too."""
    parameters: tuple[str, ...] = ()
    """More parameters of the module kvm, NAME=VALUE."""

    @property
    def cpu(self) -> str:
        """Value of QEMU's -cpu."""
        return f"max,la57={'on' if self.la57 else 'off'},+svm" + (",+npt" if self.npt else "")

    @property
    def arguments(self) -> str:
        """What `init` reads on the kernel's command line."""
        return " ".join((f"npt={self.npt:d}", f"kvm=tdp_mmu={self.tdp_mmu:d}", *(f"kvm={parameter}" for parameter in self.parameters)))


def run(work: Path, guests: list[Path], host: Host, raw: Path, report: Report, system: dict[str, bytes]) -> list[str]:
    """Run the guests whose scripts are given, and leave in `raw` what they gave: a line for each that did not get to its end.

    `report` gets each line of the console. `system`: files that take the place of the system's own.
    """
    initrd, console, disk = work / "initrd.run", raw / "console.txt", work / "disk"
    raw.mkdir(parents=True, exist_ok=True)
    _add_guests(work, guests, system, initrd)
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    try:
        _boot(work, host, initrd, disk, console, report)
        failures = _failures(console)
        _unpack(disk, raw, console)
    finally:
        disk.unlink()
        initrd.unlink()
    return failures


def _add_guests(work: Path, guests: list[Path], system: dict[str, bytes], initrd: Path) -> None:
    built = work / "initrd.gz"
    if not built.is_file():
        raise KitError(f"no {built}: run capture.py build")
    files = [file for script in guests for file in sorted(script.parent.glob(script.stem + ".*"))]
    write_archive(initrd, {f"guests/{file.name}": file.read_bytes() for file in files} | system)
    initrd.write_bytes(built.read_bytes() + initrd.read_bytes())


def _boot(work: Path, host: Host, initrd: Path, disk: Path, console: Path, report: Report) -> None:
    command = [
        program("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg", "-cpu", host.cpu, "-machine", "pc", "-smp", "1",
        "-m", str(MEMORY_MIB), "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(work / "packages" / "vmlinuz"), "-initrd", str(initrd), "-append", f"{KERNEL_ARGUMENTS} {host.arguments}",
        "-drive", f"file={disk},format=raw,if=none,id=out", "-device", "virtio-blk-pci,drive=out",
    ]  # fmt: skip
    with (
        console.open("w") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace") as qemu,
    ):
        watchdog = threading.Timer(TIMEOUT, qemu.kill)
        watchdog.start()
        assert qemu.stdout is not None
        try:
            for line in qemu.stdout:
                log.write(line)
                report(line.strip())
        except KeyboardInterrupt:
            qemu.kill()
            raise
        finally:
            watchdog.cancel()
    if qemu.returncode:
        raise KitError(f"QEMU failed or took more than {TIMEOUT} s: {_last_line(console)}; its whole console is {console}")


def _last_line(console: Path) -> str:
    lines = console.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _unpack(disk: Path, raw: Path, console: Path) -> None:
    """The system writes its output as a tar onto the bare disk."""
    try:
        with tarfile.open(disk) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    target = raw / member.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(content.read())
    except tarfile.TarError as error:
        raise KitError(f"the captured kernel left nothing: {_last_line(console)}; its whole console is {console}") from error


def _failures(console: Path) -> list[str]:
    """What the console says of guests that did not get to their end."""
    failed = re.findall(r"^INIT FAIL .*$", console.read_text(errors="replace"), re.MULTILINE)
    if failed:
        raise KitError(f"the captured kernel could not start: {failed[0].strip()}; its whole console is {console}")
    return [line.strip() for line in re.findall(r"^RUNNER FAIL (.*)$", console.read_text(errors="replace"), re.MULTILINE)]
