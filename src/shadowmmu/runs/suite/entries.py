# SPDX-License-Identifier: GPL-2.0-only
"""What a built tree of kvm-unit-tests wants to have run: x86/unittests.cfg, and guests made of its entries.

The tree is the user's; nothing of it is part of this project. Source of the format: the suite's docs/unittests.md.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shadowmmu.border.files import inside, parsing, read_file
from shadowmmu.border.limits import DESCRIPTION
from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import MAX_MEMORY_MIB, Guest
from shadowmmu.machine.vcpu.cpuid import FEATURES, ON_REQUEST

_MEMORY_MIB = 128
"""QEMU's default."""
_MAX_VCPUS = 16
_SECONDS = 90
"""The suite's own bound, also where an entry says 0, which is none."""
_NAMES = {"gbpages": "1gb-pages", "pdpe1gb": "1gb-pages", "lm": "long-mode"}
"""QEMU's name of a feature -> this machine's, where they differ."""
_AMD_V = frozenset(("svm", "npt"))
_WHOLE_MODELS = ("max", "host")
"""Of QEMU's CPU models those that have all there is."""
_NEEDS = {"vmx": "VMX", "hyperv": "Hyper-V", "pmu": "a performance counter unit"}
"""Groups of entries, and what the machine would have to offer for them."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A section of unittests.cfg."""

    name: str
    file: str
    vcpus: int = 1
    arguments: str = ""
    parameters: tuple[str, ...] = ()
    """QEMU's."""
    groups: tuple[str, ...] = ()
    arch: str = ""
    check: str = ""
    """Files of the host's that must have a certain content; always parameters of KVM's modules."""
    seconds: int = _SECONDS


class Suite(msgspec.Struct, frozen=True):
    """A built tree. `arch` is what it was built for."""

    directory: Path
    arch: str
    entries: list[Entry]


def read_suite(directory: Path) -> Suite:
    """Raises BadInput for a directory that is no built tree."""
    where = "name a tree of kvm-unit-tests that was configured and built for x86"
    config = read_file(directory / "config.mak", DESCRIPTION, f"suite {directory}", where).decode(errors="replace")
    found = re.search(r"^ARCH=(i386|x86_64)$", config, re.MULTILINE)
    if found is None:
        raise BadInput(f"suite {directory} is not for x86; {where}")
    text = read_file(directory / "x86" / "unittests.cfg", DESCRIPTION, f"suite {directory}", where).decode(errors="replace")
    parser = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=("#",))
    with parsing(f"suite {directory}: x86/unittests.cfg", "mend that line", (configparser.Error,)):
        parser.read_string(text)
        entries = [_entry(directory, name, dict(parser[name])) for name in parser.sections() if "file" in parser[name]]
        if not entries:
            raise ValueError("no section of it names a file")
    return Suite(directory, found[1], entries)


def _entry(directory: Path, name: str, fields: dict[str, str]) -> Entry:
    """Raises ValueError for numbers that are none, quotes that do not end, and images elsewhere."""
    inside(directory, str(Path("x86", fields["file"])))
    vcpus = int(fields.get("smp", "1"))
    if vcpus < 1:
        raise ValueError(f"{name} has {vcpus} vCPUs")
    return Entry(
        name=name,
        file=fields["file"],
        vcpus=min(vcpus, _MAX_VCPUS),
        arguments=" ".join(shlex.split(fields.get("test_args", ""))),
        parameters=tuple(shlex.split(fields.get("qemu_params", fields.get("extra_params", "")))),
        groups=tuple(fields.get("groups", "").split()),
        arch=fields.get("arch", ""),
        check=fields.get("check", ""),
        seconds=_digits(fields.get("timeout", "")) or _SECONDS,
    )


def _digits(text: str) -> int:
    """The number in it, as far as any use goes; 0: there is none."""
    return int(re.sub(r"\D", "", text)[:9] or 0)


def why_skipped(suite: Suite, entry: Entry) -> str:
    """Why an entry cannot be run; empty: it can."""
    if entry.arch and entry.arch != suite.arch:
        return f"{entry.arch} only"
    if "nodefault" in entry.groups:
        return "marked as manual run only"
    for group, needs in _NEEDS.items():
        if group in entry.groups:
            return f"not offered: {needs}"
    if entry.check:
        return f"not offered: {entry.check}"
    if any("iommu" in word for word in entry.parameters):
        return "not offered: an IOMMU"
    if not os.path.exists(suite.directory / "x86" / entry.file):  # which is False, too, for what can be no path at all
        return f"{entry.file} was not built"
    return ""


def guest_of(suite: Suite, entry: Entry) -> Guest:
    """The entry as a guest of the small PC, as near to its QEMU parameters as this machine comes."""
    features, without = _features(entry)
    return Guest(
        name=entry.name,
        image=entry.file,
        directory=str(suite.directory / "x86"),
        mode="mixed",
        platform="pc",
        vcpus=entry.vcpus,
        memory_mib=_memory(entry),
        arguments=entry.arguments,
        features=features,
        without=without,
        vendor="Intel" if ("vendor", "GenuineIntel") in _options(entry) else "AMD",
        exit_pass=0,
    )


def _values(entry: Entry, flag: str) -> Iterator[str]:
    """What follows an option of QEMU's, each time it stands there."""
    return (value for word, value in zip(entry.parameters, entry.parameters[1:], strict=False) if word == flag)


def _options(entry: Entry) -> Iterator[tuple[str, str]]:
    """What follows the model behind -cpu: (`+` or `-`, feature), and (name, value)."""
    for value in _values(entry, "-cpu"):
        for word in value.split(",")[1:]:
            key, equals, rest = word.partition("=")
            yield (key, rest) if equals else (word[:1], word[1:])


def _features(entry: Entry) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is asked for, and what is not to be there. AMD-V brings nested paging with it, as in QEMU."""
    whole = any(value.partition(",")[0] in _WHOLE_MODELS for value in _values(entry, "-cpu"))
    asked, without = set(ON_REQUEST - _AMD_V) if whole else set[str](), set[str]()
    for sign, word in _options(entry):
        name = _NAMES.get(word, word)
        if name in FEATURES and sign in "+-":
            (asked if sign == "+" else without).add(name)
    if "svm" in asked:
        asked.add("npt")
    return tuple(sorted((asked - without) & ON_REQUEST)), tuple(sorted(without - ON_REQUEST))


def _memory(entry: Entry) -> int:
    for value in _values(entry, "-m"):
        digits = _digits(value)
        return min(digits << 10 if value[-1:].lower() == "g" else digits, MAX_MEMORY_MIB) or _MEMORY_MIB
    return _MEMORY_MIB
