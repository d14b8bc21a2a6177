# SPDX-License-Identifier: GPL-2.0-only
"""What CPUID tells the guest: an AMD EPYC (Rome) without what this machine has not, as protection keys.
A local APIC where there is one; AMD-V, nested paging, 5-level paging, PCIDs and XSAVE only if they are asked for.

Sources: APM vol. 3 appendix E; SDM vol. 2, CPUID.
"""

from collections.abc import Iterator
from typing import NamedTuple

from shadowmmu.engine.face.config import VmConfig
from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.vcpu.cpuid_leaves import CpuidLeaves
from shadowmmu.x86.control import Cr4, Efer


class Leaf(NamedTuple):
    eax: int
    ebx: int
    ecx: int
    edx: int


_Row = tuple[int, int | None, bool, Leaf]
"""As `CpuidLeaves` takes them."""
_EBX, _ECX, _EDX = 1, 2, 3
_BASIC, _STRUCTURED, _EXTENDED, _SVM = 1, 7, 0x80000001, 0x8000000A
_SVM_REVISION, _ASIDS, _FLUSH_BY_ASID = 1, 16, 1 << 6

FEATURES = {
    "fpu": (_BASIC, _EDX, 0), "de": (_BASIC, _EDX, 2), "pse": (_BASIC, _EDX, 3), "tsc": (_BASIC, _EDX, 4),
    "msr": (_BASIC, _EDX, 5), "pae": (_BASIC, _EDX, 6), "mce": (_BASIC, _EDX, 7), "cx8": (_BASIC, _EDX, 8),
    "apic": (_BASIC, _EDX, 9), "sep": (_BASIC, _EDX, 11), "pge": (_BASIC, _EDX, 13), "cmov": (_BASIC, _EDX, 15), "pat": (_BASIC, _EDX, 16),
    "pse36": (_BASIC, _EDX, 17), "clflush": (_BASIC, _EDX, 19), "mmx": (_BASIC, _EDX, 23), "fxsr": (_BASIC, _EDX, 24),
    "sse": (_BASIC, _EDX, 25), "sse2": (_BASIC, _EDX, 26), "sse3": (_BASIC, _ECX, 0), "ssse3": (_BASIC, _ECX, 9),
    "cx16": (_BASIC, _ECX, 13), "pcid": (_BASIC, _ECX, 17), "sse4.1": (_BASIC, _ECX, 19), "sse4.2": (_BASIC, _ECX, 20),
    "x2apic": (_BASIC, _ECX, 21), "movbe": (_BASIC, _ECX, 22), "popcnt": (_BASIC, _ECX, 23), "tsc-deadline": (_BASIC, _ECX, 24),
    "aes": (_BASIC, _ECX, 25), "xsave": (_BASIC, _ECX, 26), "hypervisor": (_BASIC, _ECX, 31),
    "fsgsbase": (_STRUCTURED, _EBX, 0), "bmi1": (_STRUCTURED, _EBX, 3), "smep": (_STRUCTURED, _EBX, 7),
    "bmi2": (_STRUCTURED, _EBX, 8), "adx": (_STRUCTURED, _EBX, 19), "smap": (_STRUCTURED, _EBX, 20),
    "clflushopt": (_STRUCTURED, _EBX, 23), "la57": (_STRUCTURED, _ECX, 16),
    "lahf": (_EXTENDED, _ECX, 0), "abm": (_EXTENDED, _ECX, 5), "sse4a": (_EXTENDED, _ECX, 6),
    "svm": (_EXTENDED, _ECX, 2), "syscall": (_EXTENDED, _EDX, 11), "nx": (_EXTENDED, _EDX, 20), "mmxext": (_EXTENDED, _EDX, 22),
    "1gb-pages": (_EXTENDED, _EDX, 26), "rdtscp": (_EXTENDED, _EDX, 27), "long-mode": (_EXTENDED, _EDX, 29),
    "npt": (_SVM, _EDX, 0),
}  # fmt: skip
"""Name -> (leaf, register, bit) of everything the machine can offer."""
_EFER = {"nx": Efer.NXE, "long-mode": Efer.LME, "svm": Efer.SVME}
_CR4 = {"smep": Cr4.SMEP, "smap": Cr4.SMAP, "fsgsbase": Cr4.FSGSBASE, "la57": Cr4.LA57, "pcid": Cr4.PCIDE, "xsave": Cr4.OSXSAVE}
"""Name -> the bits of EFER, or of CR4, that a guest may set if it has the feature."""
ON_REQUEST = frozenset(("la57", "pcid", "svm", "npt", "xsave"))
"""Offered only to a guest that asks for it."""
OF_APIC = frozenset(("apic", "x2apic", "tsc-deadline"))
"""Offered where there is a local APIC."""

CR4_OFFERED = int(
    Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
    | Cr4.LA57 | Cr4.FSGSBASE | Cr4.PCIDE | Cr4.OSXSAVE | Cr4.SMEP | Cr4.SMAP
)  # fmt: skip
"""CR4 bits the guest may set, if its VM was not made without."""

_ALSO_EXTENDED = frozenset(
    ("fpu", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "pge", "cmov", "pat", "pse36", "mmx", "fxsr")
)  # AMD repeats these in 80000001h EDX
_AMD = Leaf(0, 0x68747541, 0x444D4163, 0x69746E65)  # "AuthenticAMD"
_INTEL = Leaf(0, 0x756E6547, 0x6C65746E, 0x49656E69)  # "GenuineIntel"
SIGNATURE = 0x00830F10  # family 17h, model 31h, stepping 0
_BRAND = b"AMD EPYC-Rome, shadow-paged".ljust(48, b"\0")
_HYPERVISOR = Leaf(0x40000000, *(int.from_bytes(b"shadowmmu   "[i : i + 4], "little") for i in (0, 4, 8)))
_LAST_BASIC = 0xD
_TOPOLOGY, _THREAD, _CORE = 0xB, 1 << 8, 2 << 8
_XSAVE_AREA, _X87_AND_SSE, _XSAVE_SIZE, _XSAVEOPT, _XGETBV_1 = 0xD, 3, 576, 1 << 0, 1 << 2


def cr4_not_for(features: frozenset[str]) -> int:
    """CR4 bits that a VM whose guest asks for these features is made without: on nested tables the CPU walks four levels and knows no
    PCIDs."""
    without = Cr4(0) if "xsave" in features else Cr4.OSXSAVE
    if "npt" in features:
        return int(without | Cr4.LA57 | Cr4.PCIDE)
    return int(without if "pcid" in features else without | Cr4.PCIDE)


def _offered(config: VmConfig, asked: frozenset[str], without: frozenset[str]) -> frozenset[str]:
    """All features, but for those that the VM's description of the guest's CPU leaves out."""
    missing = ON_REQUEST - asked | without
    if not config.pages_1g:
        missing |= {"1gb-pages"}
    missing |= {name for name, bits in _EFER.items() if config.efer_reserved & bits}
    missing |= {name for name, bits in _CR4.items() if config.cr4_reserved & bits}
    return frozenset(FEATURES) - missing


class Cpuid:
    """The leaves of one vCPU of a VM that is made so.

    asked    what the guest wants of `ON_REQUEST`
    without  what it is not to be offered
    apic     the vCPU's, if it has one
    """

    def __init__(
        self,
        number: int,
        config: VmConfig,
        asked: frozenset[str] = frozenset(),
        without: frozenset[str] = frozenset(),
        apic: LocalApic | None = None,
    ) -> None:
        self._apic, self._number, self._vcpus = apic, number, config.vcpus
        without |= OF_APIC if apic is None else frozenset()
        vcpus, vendor = config.vcpus, _AMD if config.amd else _INTEL
        self._offered = offered = _offered(config, asked, without)
        la57, last = "la57" in asked, _SVM if self.offers("svm") else 0x80000008
        self._leaves = {
            0x0: vendor._replace(eax=_LAST_BASIC),
            0x40000000: _HYPERVISOR,
            0x80000000: vendor._replace(eax=last),
            0x80000008: Leaf((57 if la57 else 48) << 8 | config.maxphyaddr, 0, vcpus - 1, 0),
        }
        for i in range(3):
            words = (int.from_bytes(_BRAND[16 * i + at : 16 * i + at + 4], "little") for at in (0, 4, 8, 12))
            self._leaves[0x80000002 + i] = Leaf(*words)
        for leaf in (_BASIC, _STRUCTURED, _EXTENDED):
            self._leaves[leaf] = self._features(leaf, offered)
        basic = self._leaves[_BASIC]
        self._leaves[_BASIC] = basic._replace(eax=SIGNATURE, ebx=number << 24 | vcpus << 16 | 8 << 8)
        self._leaves[_EXTENDED] = self._leaves[_EXTENDED]._replace(eax=SIGNATURE)
        if self.offers("svm"):
            nested = self._features(_SVM, offered).edx
            self._leaves[_SVM] = Leaf(_SVM_REVISION, _ASIDS, 0, nested | _FLUSH_BY_ASID)
        self.leaves = CpuidLeaves([*self._plain_rows(), *self._xsave_rows(), *self._topology_rows()])

    @staticmethod
    def _features(leaf: int, offered: frozenset[str]) -> Leaf:
        registers = [0, 0, 0, 0]
        for name in offered:
            where, register, bit = FEATURES[name]
            if where == leaf:
                registers[register] |= 1 << bit
            if leaf == _EXTENDED and name in _ALSO_EXTENDED:
                registers[_EDX] |= 1 << bit
        return Leaf(*registers)

    def offers(self, feature: str) -> bool:
        """A name of `FEATURES`."""
        return feature in self._offered

    def read(self, leaf: int, subleaf: int, cr4: int = 0) -> Leaf:
        """EAX, EBX, ECX, EDX; zeroes for a leaf that is not there. OSXSAVE is what CR4 says."""
        found = self.leaves.read(leaf, subleaf, cr4, self._apic is None or self._apic.enabled)
        return Leaf(0, 0, 0, 0) if found is None else Leaf(*found)

    def has(self, leaf: int, subleaf: int) -> bool:
        return self.leaves.read(leaf, subleaf, 0, True) is not None

    def _plain_rows(self) -> Iterator[_Row]:
        """All subleaves are the same, but of the structured features, which have one."""
        for number, leaf in self._leaves.items():
            yield number, 0 if number == _STRUCTURED else None, False, leaf

    def _xsave_rows(self) -> Iterator[_Row]:
        if self.offers("xsave"):
            yield _XSAVE_AREA, 0, False, Leaf(_X87_AND_SSE, _XSAVE_SIZE, _XSAVE_SIZE, 0)
            yield _XSAVE_AREA, 1, False, Leaf(_XSAVEOPT | _XGETBV_1, 0, 0, 0)

    def _topology_rows(self) -> Iterator[_Row]:
        """One thread a core, all cores in one package; EDX is the x2APIC's number, whatever is asked for."""
        if self._apic is not None:
            shift = (self._vcpus - 1).bit_length()
            yield _TOPOLOGY, 0, True, Leaf(0, 1, _THREAD, self._number)
            yield _TOPOLOGY, 1, True, Leaf(shift, self._vcpus, _CORE, self._number)
            yield _TOPOLOGY, None, True, Leaf(0, 0, 0, self._number)
