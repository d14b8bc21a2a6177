# SPDX-License-Identifier: GPL-2.0-only
"""What a VM is made with: its guest, its host, and how much the shadow MMU may use. Plain values, checked when made."""

from dataclasses import dataclass
from typing import Any

from shadowmmu.engine.face.arguments import check_range
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL, rules_of
from shadowmmu.engine.roots.designs import ROOT_DESIGNS

MAX_TABLE_PAGES = 1 << 21  # 8 GiB of shadow tables, and as much for their descriptors
_CHOICES: dict[str, tuple[Any, ...]] = {
    "roots": tuple(ROOT_DESIGNS),
    "host_levels": (3, 4, 5),
    "vendor": ("svm", "vmx"),
    "guest_vendor": ("host", "svm", "vmx"),
}
_RANGES = {
    "memory_mib": (0, 1 << 16),
    "user_mib": (0, 1 << 16),
    "vcpus": (1, 64),
    "maxphyaddr": (32, 51),
    "host_maxphyaddr": (36, 52),
    "cr4_reserved": (0, (1 << 64) - 1),
    "efer_reserved": (0, (1 << 64) - 1),
    "max_huge_level": (1, 3),
    "shadow_pages": (0, MAX_TABLE_PAGES // 2),
    "table_pages": (0, MAX_TABLE_PAGES),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VmConfig:
    """The keyword arguments of `Vm`, by what they describe. A value out of range is a ValueError, another type a TypeError."""

    # --- the guest
    memory_mib: int = 32
    """Guest memory in one memslot at 0, MiB; 0 makes none."""
    vcpus: int = 1
    """How many vCPUs, 1 to 64."""
    maxphyaddr: int = 40
    """Width of the guest's physical addresses, bits."""
    cr4_reserved: int = 0
    """CR4 bits that the guest's CPUID does not offer: setting one is #GP."""
    efer_reserved: int = 0
    """EFER bits that it does not offer, likewise: NXE without NX, LME and LMA without long mode."""
    pages_1g: bool = True
    """It offers 1 GiB pages."""
    guest_vendor: str = "host"
    """"svm" or "vmx": the guest's CPUID says AMD, or Intel; "host": as the host's. AMD reserves bit 8 of an entry of level 4 or 5."""

    # --- the host
    vendor: str = "svm"
    """"svm" or "vmx": reserved bits, and EPT where `tdp` is set."""
    tdp: bool = False
    """Run L1 on direct tables (nested paging on) instead of shadow paging."""
    host_levels: int = 4
    """3, 4 or 5: levels of the host's own paging, which NPT shares."""
    mmio_caching: bool = True
    """Mark gfns without memory as MMIO in shadow tables (kvm.mmio_caching)."""
    host_maxphyaddr: int = 46
    """Width of the host's physical addresses, bits."""
    user_mib: int = 0
    """Host user memory that memslots can map, MiB; 0: as much as `memory_mib`."""

    # --- the shadow MMU
    kernel: str = DEFAULT_KERNEL
    """Whose rules it has: a name of `KERNELS`, see docs/kernels.md. With +RULE or -RULE behind it some are changed."""
    roots: str = "special"
    """How roots without a guest table are made: a name of `ROOT_DESIGNS`."""
    max_huge_level: int = 3
    """The largest mapping: 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB)."""
    nx_huge_pages: bool = False
    """Huge mappings are not executable (iTLB multihit)."""
    eager_page_split: bool = False
    """Split an L2's huge mappings when dirty logging begins, as Linux with its TDP MMU does."""
    shadow_pages: int = 0
    """Limit of shadow pages; 0: the kernel's default, which follows the memory size."""
    table_pages: int = 0
    """Pool of shadow tables, the most that can ever exist; 0: enough for the default limit."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if type(self.kernel) is not str:
            raise TypeError(f"kernel is {self.kernel!r}; name one, as {DEFAULT_KERNEL!r}")
        rules_of(self.kernel)
        for name, (low, high) in _RANGES.items():
            check_range(name, getattr(self, name), low, high)
        if self.user_mib:
            check_range("user_mib", self.user_mib, self.memory_mib, _RANGES["user_mib"][1])

    @property
    def amd(self) -> bool:
        """The guest's CPU is one of AMD's."""
        return (self.vendor if self.guest_vendor == "host" else self.guest_vendor) == "svm"

    @property
    def has_1g(self) -> bool:
        """The guest can use 1 GiB pages: with nested paging its CPU has them, whatever CPUID says (guest_can_use_gbpages)."""
        return self.pages_1g or self.tdp


def check_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    """Raise TypeError unless `value` is of the type of `choices`, ValueError unless it is one of them."""
    if type(value) is not type(choices[0]):
        raise TypeError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")
