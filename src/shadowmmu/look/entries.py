# SPDX-License-Identifier: GPL-2.0-only
"""Shadow entries, decoded, each beside the guest entry it was made from.

The entry format is that of shadow paging and NPT; EPT entries are not decoded. Entry layouts: AMD APM vol. 2 section
5.3; KVM's own bits: arch/x86/kvm/mmu/spte.h of Linux 6.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from shadowmmu import GuestMemoryError, MmuView, ShadowPageView, Vm
from shadowmmu.engine.arena.role import Access, Role, RoleShift, describe_role
from shadowmmu.engine.arena.spte import Spte, SpteShift
from shadowmmu.engine.face.kernels import rules_of
from shadowmmu.look.data import Hex
from shadowmmu.x86.control import Cr3
from shadowmmu.x86.pte import Pte, PteShift

ENTRIES = 512
SIZES = {1: "4K", 2: "2M", 3: "1G"}
STALE, CLEAN = "stale", "clean"


class GuestEntry(msgspec.Struct):
    """An entry of the guest's own tables, and where it lies (guest physical, bytes)."""

    at: Hex
    value: Hex


class Mapping(msgspec.Struct, kw_only=True):
    """One shadow entry: a `child` table, or memory, or with a `generation` a mark that there is none."""

    index: int
    entry: int
    guest: GuestEntry | None
    child: int | None = None
    gfn: int = 0
    frames: int = 0
    size: str = ""
    rights: str = ""
    note: str = ""
    generation: int | None = None


def role_flags(role: int) -> list[str]:
    """The flags of a role in the kernel's words: what it has besides level, entry size, quadrant, `direct` and rights."""
    words: list[str] = describe_role(role & ~int(Role.DIRECT)).split()
    return words[4:]


def role_words(role: int, root_role: int) -> list[str]:
    """What a role adds to its place: quadrant if it is not 0, rights of the levels above, flags that the root has not."""
    quadrant, access = [word for word in describe_role(role).split()[2:5] if word != "direct"][:2]
    common = set(role_flags(root_role))
    return [word for word in (quadrant, access, *role_flags(role)) if word not in common | {"q0"}]


def rights(entry: int) -> str:
    """What an entry allows, like `rw-u`: read, write, execute, user mode."""
    return "".join(
        letter if allowed else "-"
        for letter, allowed in zip("rwxu", (True, entry & Pte.WRITABLE, not entry & Pte.NX, entry & Pte.USER), strict=True)
    )


class EntryReader:
    """Reads shadow tables of one VM at one moment: frames and shadowed guest tables are looked up once."""

    def __init__(self, vm: Vm, pages: Sequence[ShadowPageView]) -> None:
        self.vm = vm
        self.gfns = _frames(vm)
        self.readonly = [(slot.gpa >> 12, slot.gpa + slot.size >> 12) for slot in vm.memslots() if slot.readonly]
        self.tracked: dict[int, set[int]] = {}
        for page in pages:
            if shadows_table(page) and not page.unsync and not page.role & Role.INVALID:
                self.tracked.setdefault(page.gfn, set()).add(page.level)

    def mappings(self, mmu: MmuView, hpa: int, level: int, page: ShadowPageView | None) -> Iterator[Mapping]:
        """Every used entry of the table at `hpa`; `page` is its shadow page, None for a bare legacy table."""
        for index, entry in self.vm.used_words(hpa, ENTRIES, self.vm.nothing_in(hpa)).items():
            guest = self.guest_entry(mmu, level, page, index)
            if not entry & Spte.MMU_PRESENT and entry & Spte.MMIO == Spte.MMIO:
                gfn = (entry & Spte.BASE_ADDR & ~Spte.MMIO) >> 12
                yield Mapping(index=index, entry=entry, guest=guest, gfn=gfn, generation=_generation(self.vm, entry))
            elif level > 1 and not entry & Pte.PAGE_SIZE:
                yield Mapping(index=index, entry=entry, guest=guest, child=entry & Spte.BASE_ADDR)
            elif page is not None:
                yield self.leaf(level, page, index, entry, guest)

    def leaf(self, level: int, page: ShadowPageView, index: int, entry: int, guest: GuestEntry | None) -> Mapping:
        """An entry that maps memory. The gfn is that of the frame it leads to, whatever the guest's entry says."""
        frames = self.gfns.get((entry & Spte.BASE_ADDR) >> 12, [])
        wanted = _wanted_gfn(level, page, index, guest)
        gfn = wanted if wanted in frames else frames[0] if frames else 0
        note = STALE if gfn != wanted else self.protection(page, entry, gfn, guest)
        return Mapping(
            index=index, entry=entry, guest=guest, gfn=gfn, frames=1 << 9 * (level - 1), size=SIZES[level], rights=rights(entry), note=note
        )

    def protection(self, page: ShadowPageView, entry: int, gfn: int, guest: GuestEntry | None) -> str:
        """Why the entry cannot be written though the guest's tables allow it; empty if it can, or if they do not."""
        allowed = page.role >> RoleShift.ACCESS_SHIFT & Access.WRITE and (guest is None or guest.value & Pte.WRITABLE)
        if entry & Pte.WRITABLE or not allowed:
            return ""
        if gfn in self.tracked:
            return "holds table " + " ".join(f"l{level}" for level in sorted(self.tracked[gfn]))
        if guest is not None and not guest.value & Pte.DIRTY:
            return CLEAN
        return "read-only memory" if any(first <= gfn < end for first, end in self.readonly) else "write-protected"

    def guest_entry(self, mmu: MmuView, level: int, page: ShadowPageView | None, index: int) -> GuestEntry | None:
        """The guest's own entry for a shadow entry; None where it has none, or none can be read."""
        at, size = _place(mmu, level, page, index)
        if not size:
            return None
        try:
            return GuestEntry(
                Hex(at), Hex.from_bytes(self.vm.read_guest(at, size, page.role >> RoleShift.SMM_SHIFT if page else 0), "little")
            )
        except GuestMemoryError:
            return None


def shadows_table(page: ShadowPageView) -> bool:
    """The page stands for a table of the guest."""
    return not page.special and not page.role & (Role.DIRECT | Role.PASSTHROUGH)


def _place(mmu: MmuView, level: int, page: ShadowPageView | None, index: int) -> tuple[int, int]:
    """Guest physical address and bytes of the guest entry behind entry `index`; (0, 0) if there is none."""
    if page is None or page.special:
        if level == 3 and mmu.guest_levels == 3 and not mmu.direct:
            return (mmu.pgd & Cr3.PAE_TABLE_MASK) + 8 * index, 8
        return 0, 0
    if not shadows_table(page):
        return 0, 0
    if not page.role & Role.HAS_4_BYTE_GPTE:
        return (page.gfn << 12) + 8 * index, 8
    quadrant = (page.role & Role.QUADRANT) >> RoleShift.QUADRANT_SHIFT
    return (page.gfn << 12) + (quadrant << 9 | index) // level * 4, 4


def _wanted_gfn(level: int, page: ShadowPageView, index: int, guest: GuestEntry | None) -> int | None:
    """The gfn that entry `index` should map by its place, or by what the guest's entry says now."""
    base: int = page.gfn
    if not shadows_table(page):
        return base + (index << 9 * (level - 1))
    value = 0 if guest is None else int(guest.value)
    if not value & Pte.PRESENT or (level > 1 and not value & Pte.PAGE_SIZE):
        return None
    if not page.role & Role.HAS_4_BYTE_GPTE:
        return (value & int(Pte.ADDR)) >> 12 & -1 << 9 * (level - 1)
    if level == 1:
        return value >> 12
    high = (value & int(Pte.PSE36_MASK)) << int(PteShift.PSE36) >> 12
    return high | value >> 22 << 10 | (index & 1) << 9


def _generation(vm: Vm, entry: int) -> int:
    """The memslot generation of an MMIO mark, in two parts."""
    low_bits = 7 if "short_mmio_gen" in rules_of(vm.config.kernel) else 8
    low = entry >> int(SpteShift.MMIO_GEN_LOW_SHIFT) & (1 << low_bits) - 1
    return low | (entry & int(Spte.MMIO_GEN_HIGH)) >> int(SpteShift.MMIO_GEN_HIGH_SHIFT) << low_bits


def _frames(vm: Vm) -> dict[int, list[int]]:
    """Host frame -> the gfns that it backs, of every memslot."""
    gfns: dict[int, list[int]] = {}
    for slot in vm.memslots():
        for gpa in range(slot.gpa, slot.gpa + slot.size, 4096):
            hpa = vm.host_address(gpa, slot.address_space)
            if hpa is not None:
                gfns.setdefault(hpa >> 12, []).append(gpa >> 12)
    return gfns
