# SPDX-License-Identifier: GPL-2.0-only
"""kvm.ko and kvm-amd.ko, built as Debian builds them; first unedited, to see that they are the packaged ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from kit.errors import KitError, call, program
from kit.kernel.compiler import enclose
from kit.kernel.packages import Packages
from kit.kernel.posted import POSTED
from kit.kernel.sections import differing
from kit.kernel.source import Edit, apply
from kit.kernel.special import SPECIAL

MODULES = ("kvm.ko", "kvm-amd.ko")
"""Always replaced together: they agree in the layout of their structs."""
EditName = Literal["special", "posted"]
EDITS: dict[EditName, dict[str, tuple[Edit, ...]]] = {"special": SPECIAL, "posted": POSTED}
"""By edit, and by series of the kernel."""
ROOTS: dict[EditName | None, str] = {None: "legacy", "special": "special", "posted": "special"}
"""The root design of each edit, by the engine's name; without any, the packaged kernel's."""
REMEDY = "apt install gcc-12 make libelf1 binutils (for 6.1 and 6.12 the compiler must be Debian 12's)"
WITHOUT_CCACHE = {"CCACHE_DISABLE": "1"}
"""It may rewrite the names of files that warnings print."""
KVM = "arch/x86/kvm"
_SOURCES = ("arch/x86/kvm/*", "virt/kvm/*", "arch/x86/include/asm/kvm_host.h")


def prepare(packages: Packages, here: Path, folder: Path) -> None:
    """Unpack headers, sources and compiler below `folder`, with the kit's own files among them."""
    shutil.rmtree(folder, ignore_errors=True)
    root = folder.absolute() / "root"
    root.mkdir(parents=True)
    for package in (packages.headers, packages.common, packages.kbuild, *packages.compiler):
        call([program("dpkg-deb", "dpkg"), "--extract", str(package), str(root)], f"delete {package.name} and try again")
    if packages.compiler:
        enclose(root)
    makefile = _headers(packages, folder) / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{root}/usr/src/"))
    _unpack_source(packages, folder / "source")
    shutil.copyfile(here / "kernel" / "Kbuild", folder / "source" / KVM / "Kbuild")
    shutil.copyfile(here / "kernel" / "special_roots.c", folder / "source" / KVM / "mmu" / "special_roots.c")


def _headers(packages: Packages, folder: Path) -> Path:
    return folder / "root/usr/src" / f"linux-headers-{packages.kernel}"


def _unpack_source(packages: Packages, target: Path) -> None:
    """KVM alone, out of the archive inside the package."""
    target.mkdir(parents=True)
    members = " ".join(f"'*/{pattern}'" for pattern in _SOURCES)
    pipe = (
        f'dpkg-deb --fsys-tarfile "$1" | tar -xO ./usr/src/linux-source-{packages.series}.tar.xz | '
        f'tar -xJ -C "$2" --strip-components=1 --wildcards {members}'
    )
    done = subprocess.run(["sh", "-c", pipe, "sh", str(packages.source), str(target)], capture_output=True, text=True, check=False)
    if done.returncode or not (target / KVM / "mmu/mmu.c").is_file():
        raise KitError(f"{packages.source} has no source of KVM: {done.stderr.strip() or 'delete it and try again'}")


def build(packages: Packages, folder: Path, target: Path) -> None:
    """Compile both modules of the tree as it is now, and leave them in `target`."""
    source, log = folder.absolute() / "source" / KVM, folder / "make.log"
    beside = folder.absolute() / "objects" / KVM
    for place in (beside, beside / "../../../virt/kvm"):
        place.mkdir(parents=True, exist_ok=True)
    command = [
        program("make", "make"), "-j2", "-C", str(_headers(packages, folder).absolute()), f"M={source}", f"MO={beside}",
        "KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules",
    ]  # fmt: skip
    path = f"{folder.absolute()}/root/usr/bin:{os.environ['PATH']}"
    with log.open("w") as out:
        done = subprocess.run(command, env=os.environ | WITHOUT_CCACHE | {"PATH": path}, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        told = next((line for line in log.read_text().splitlines() if "error" in line.lower()), "make failed")
        raise KitError(f"{told.strip()}; the whole log is {log}; {REMEDY}")
    target.mkdir(parents=True, exist_ok=True)
    for name in MODULES:
        made = beside / name if (beside / name).is_file() else source / name  # kernels before 6.13 do not know MO
        shutil.copyfile(made, target / name)
        call([program("strip", "binutils"), "--strip-debug", str(target / name)], REMEDY)


def check_unedited(built: Path, packaged: Path) -> str:
    """Code and data of the unedited modules must be, byte by byte, the packaged ones'; what is to be said of it."""
    size = renamed = 0
    for name in MODULES:
        found = differing((built / name).read_bytes(), (packaged / name).read_bytes())
        if found.sections:
            raise KitError(f"{name} built from the unedited source differs from the packaged one in {', '.join(found.sections)}; {REMEDY}")
        size, renamed = size + found.compared, renamed + found.renamed
    apart = f", the place of {renamed} source files apart" if renamed else ""
    return f"unedited: {size:,} bytes of code and data are the packaged modules'{apart}"


def make(packages: Packages, here: Path, work: Path, edit: EditName | None, report: Callable[[str], None]) -> Path:
    """Build, compare with the packaged modules, then edit and build again; the folder of the modules."""
    folder = work / "kernel"
    prepare(packages, here, folder)
    plain = work / "modules" / "unedited"
    build(packages, folder, plain)
    report(check_unedited(plain, work / "packages"))
    if edit is None:
        return plain
    edits = EDITS[edit][packages.series]
    lines = apply(edits, folder / "source")
    build(packages, folder, work / "modules" / edit)
    own = len((here / "kernel" / "special_roots.c").read_text().splitlines())
    report(f"{edit}: {len(edits)} edits, {lines.added} lines more and {lines.removed} fewer; {own} in special_roots.c")
    return work / "modules" / edit


def built(work: Path, edit: EditName) -> dict[str, bytes]:
    """The edited modules, as files of the captured system."""
    folder = work / "modules" / edit
    if not all((folder / name).is_file() for name in MODULES):
        raise KitError(f"no modules in {folder}: run capture.py modules --edit {edit}")
    return {f"modules/{name}": (folder / name).read_bytes() for name in MODULES}
