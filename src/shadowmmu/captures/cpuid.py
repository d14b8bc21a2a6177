# SPDX-License-Identifier: GPL-2.0-only
"""The CPUID of a captured guest: what it says of the CPU that the MMU works for."""

from __future__ import annotations

from collections.abc import Iterator

from shadowmmu.captures.capture import Setup

Feature = tuple[int, str, int]
"""A feature in CPUID: leaf, register, bit (APM vol. 3 appendix D)."""
Leaves = dict[int, dict[str, int]]
"""Leaf -> registers, of sub-leaf 0."""
CR4: tuple[tuple[Feature, int], ...] = (
    ((0x1, "ecx", 17), 17), ((0x1, "ecx", 26), 18), ((0x1, "ecx", 5), 13), ((0x7, "ebx", 0), 16), ((0x7, "ebx", 7), 20),
    ((0x7, "ebx", 20), 21), ((0x7, "ecx", 2), 11), ((0x7, "ecx", 3), 22), ((0x7, "ecx", 16), 12),
)  # fmt: skip
"""Feature -> the number of the CR4 bit that it offers."""
EFER: tuple[tuple[Feature, int], ...] = (
    ((0x80000001, "edx", 29), 0x500), ((0x80000001, "edx", 20), 0x800), ((0x80000001, "ecx", 2), 0x1000), ((0x80000001, "edx", 25), 0x4000),
)  # fmt: skip
"""Feature -> the EFER bits that it offers: long mode LME and LMA, NX NXE, SVM SVME, FXSR_OPT FFXSR."""
PAGES_1G: Feature = (0x80000001, "edx", 26)
VENDORS = {"svm": "AuthenticAMD", "vmx": "GenuineIntel"}
"""By the engine's names: what leaf 0 says in EBX, EDX and ECX."""
_GENUINE_INTEL = 0x756E6547
"""EBX of leaf 0."""
_ALWAYS_RESERVED = 0xFFFF_FFFF_FF00_0000 | 1 << 15 | 1 << 19


def read(text: str) -> Leaves:
    """From lines `LEAF.SUBLEAF EAX EBX ECX EDX`."""
    leaves: Leaves = {}
    for line in text.splitlines():
        words = line.split()
        leaf, _, sub = words[0].partition(".")
        if sub == "0":
            leaves[int(leaf, 16)] = dict(zip(("eax", "ebx", "ecx", "edx"), (int(w, 16) for w in words[1:5]), strict=True))
    return leaves


def offers(leaves: Leaves, feature: Feature) -> bool:
    leaf, register, bit = feature
    return bool(leaves.get(leaf, {}).get(register, 0) >> bit & 1)


def cr4_reserved(leaves: Leaves) -> int:
    return _ALWAYS_RESERVED | sum(1 << cr4_bit for feature, cr4_bit in CR4 if not offers(leaves, feature))


def efer_reserved(leaves: Leaves) -> int:
    return sum(bits for feature, bits in EFER if not offers(leaves, feature))


def address_bits(leaves: Leaves) -> int:
    return leaves.get(0x80000008, {}).get("eax", 36) & 0xFF


def vendor(leaves: Leaves) -> str:
    return "vmx" if leaves.get(0, {}).get("ebx") == _GENUINE_INTEL else "svm"


def lacking(setup: Setup) -> Iterator[Feature]:
    """The features that a captured guest's CPU has not."""
    yield from (feature for feature, bit in CR4 if setup.cr4_reserved >> bit & 1)
    yield from (feature for feature, bits in EFER if setup.efer_reserved & bits)
    if not setup.pages_1g:
        yield PAGES_1G
