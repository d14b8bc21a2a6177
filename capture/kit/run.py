# SPDX-License-Identifier: GPL-2.0-only
"""Boots the kernel on QEMU's own CPU (TCG: no KVM of the machine is used), with the guests of one set."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kit.errors import KitError, program
from kit.initramfs import write_archive
from kit.watchdog import PATIENCE, Process, Watchdog

MEMORY_MIB = 1024
"""What it has beside its guests' memory."""
HUGE_PAGES = 32
"""Of 2 MiB, which it has in any case."""
DISK_BYTES = 512 << 20
KERNEL_ARGUMENTS = (
    "console=ttyS0 nokaslr mitigations=off audit=0 selinux=0 apparmor=0 quiet loglevel=4 nowatchdog nmi_watchdog=0 "
    "random.trust_cpu=on panic=-1 no_timer_check"
)
"""nokaslr: the dumps read the kernel's direct map at its known place. no_timer_check: on a busy machine TCG's timer looks broken to it.
The rest keeps the console and the trace quiet."""
Report = Callable[[str], None]
"""Gets each line of the console."""


class Host(NamedTuple):
    """The machine that QEMU shows the captured kernel, and how its KVM is loaded."""

    npt: bool = False
    tdp_mmu: bool = True
    la57: bool = False
    """Five levels in the captured kernel's own tables, so in its nested page tables too."""
    address_bits: int = 0
    """Of its physical addresses; 0: as QEMU has it."""
    parameters: tuple[str, ...] = ()
    """More parameters of the module kvm, NAME=VALUE."""
    patience: int = 0
    """Ticks without a word after which the runner gives a guest up; 0: as many as it thinks right."""

    @property
    def cpu(self) -> str:
        """Value of QEMU's -cpu."""
        bits = f",phys-bits={self.address_bits}" if self.address_bits else ""
        return f"max,la57={'on' if self.la57 else 'off'},+svm" + (",+npt" if self.npt else "") + bits

    @property
    def arguments(self) -> str:
        """What `init` reads on the kernel's command line."""
        return " ".join((f"npt={self.npt:d}", f"kvm=tdp_mmu={self.tdp_mmu:d}", *(f"kvm={parameter}" for parameter in self.parameters)))


def run(work: Path, guests: list[Path], host: Host, raw: Path, report: Report, system: dict[str, bytes]) -> list[str]:
    """Run the guests whose scripts are given, and leave in `raw` what they gave: a line for each that did not get to its end.

    What guests left is kept, whatever becomes of those behind them. `report` gets each line of the console. `system`: files that
    take the place of the system's own.
    """
    initrd, console, disk = raw / "initrd.gz", raw / "console.txt", raw / "disk"
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    _add_guests(work, guests, host.patience, system, initrd)
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    try:
        died = _boot(work, host, memory_of(guests), initrd, disk, console, report)
        _complain_of_the_kernel(console)
        _unpack(disk, raw, console)
    finally:
        disk.unlink()
        initrd.unlink()
    failures = _failures(console)
    left = [script.stem for script in guests if not (raw / f"{script.stem}.raw").exists() and not _named(script.stem, failures)]
    return failures + [f"{name}: {died or 'it left nothing'}" for name in left]


class HostMemory(NamedTuple):
    """What the captured kernel must have for its guests, the largest of which counts."""

    mib: int = 0
    """Of all kinds."""
    huge: int = 0
    giant: int = 0
    """Pages of 2 MiB and of 1 GiB."""

    @property
    def arguments(self) -> str:
        giant = f"hugepagesz=1G hugepages={self.giant} " if self.giant else ""
        return f"{giant}huge={max(self.huge, HUGE_PAGES)}"


def memory_of(guests: list[Path]) -> HostMemory:
    """By the memslots of the guests' scripts, as if each had all of its own at once."""
    each = [_memory_of(script.read_text()) for script in guests]
    return HostMemory(*(max(amounts) for amounts in zip(*each, strict=True))) if each else HostMemory()


def _memory_of(script: str) -> HostMemory:
    sizes = dict[str, int]()
    for size, backing in re.findall(r"^slot \d+ \w+ \w+ (\w+) (\w+)$", script, re.MULTILINE):
        sizes[backing] = sizes.get(backing, 0) + int(size, 16)
    return HostMemory(sum(sizes.values()) >> 20, sizes.get("huge", 0) >> 21, sizes.get("giant", 0) >> 30)


def _named(name: str, failures: list[str]) -> bool:
    return any(failure.startswith(f"{name}:") for failure in failures)


def _add_guests(work: Path, guests: list[Path], patience: int, system: dict[str, bytes], initrd: Path) -> None:
    built = work / "initrd.gz"
    if not built.is_file():
        raise KitError(f"no {built}: run capture.py build")
    files = [file for script in guests for file in sorted(script.parent.glob(script.stem + ".*"))]
    contents = {f"guests/{file.name}": file.read_bytes() for file in files}
    if patience:
        contents |= {f"guests/{script.name}": f"patience {patience}\n".encode() + script.read_bytes() for script in guests}
    write_archive(initrd, contents | system)
    initrd.write_bytes(built.read_bytes() + initrd.read_bytes())


def _boot(work: Path, host: Host, memory: HostMemory, initrd: Path, disk: Path, console: Path, report: Report) -> str:
    """What stopped the machine before its guests were done, or nothing."""
    arguments = f"{KERNEL_ARGUMENTS} {memory.arguments} {host.arguments}"
    command = [
        program("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg", "-cpu", host.cpu, "-machine", "pc", "-smp", "1",
        "-m", str(MEMORY_MIB + memory.mib), "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(work / "packages" / "vmlinuz"), "-initrd", str(initrd), "-append", arguments,
        "-drive", f"file={disk},format=raw,if=none,id=out", "-device", "virtio-blk-pci,drive=out",
    ]  # fmt: skip
    with (
        console.open("w") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace") as qemu,
    ):
        watchdog, over = Watchdog(Process(qemu.pid), qemu.kill), threading.Event()
        threading.Thread(target=watchdog.watch, args=(over,), daemon=True).start()
        assert qemu.stdout is not None
        try:
            for line in qemu.stdout:
                watchdog.heard()
                log.write(line)
                report(line.strip())
        except KeyboardInterrupt:
            qemu.kill()
            raise
        finally:
            over.set()
    if watchdog.barked:
        return f"not a word from the captured machine in {PATIENCE} s of its work, the last was {_last_line(console)!r}"
    return f"QEMU failed: {_last_line(console)}; its whole console is {console}" if qemu.returncode else ""


def _last_line(console: Path) -> str:
    lines = console.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _unpack(disk: Path, raw: Path, console: Path) -> None:
    """The system writes its output as one tar behind the other onto the bare disk; the last may be cut off."""
    try:
        with tarfile.open(disk, ignore_zeros=True) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    target = raw / member.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(content.read())
    except tarfile.TarError as error:
        raise KitError(f"the captured kernel left nothing: {_last_line(console)}; its whole console is {console}") from error


def _complain_of_the_kernel(console: Path) -> None:
    text = console.read_text(errors="replace")
    failed = re.findall(r"^INIT FAIL .*$", text, re.MULTILINE)
    if failed:
        raise KitError(f"the captured kernel could not start: {failed[0].strip()}; its whole console is {console}")
    missing = re.findall(r"^PROBE MISSING (.*)$", text, re.MULTILINE)
    if missing:
        told = f"the captured kernel lacks {len(missing)} probes, so no capture would be whole: {missing[0].strip()}"
        raise KitError(f"{told}; mend kit/kernels.py")


def _failures(console: Path) -> list[str]:
    """What the console says of guests that did not get to their end."""
    return [line.strip() for line in re.findall(r"^RUNNER FAIL (.*)$", console.read_text(errors="replace"), re.MULTILINE)]
