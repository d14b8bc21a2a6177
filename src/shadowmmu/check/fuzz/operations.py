# SPDX-License-Identifier: GPL-2.0-only
"""Operations of a fuzz, and the small world they happen in."""

from enum import IntEnum
from typing import NamedTuple

from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.hardware.walk import Features

PAGE = 4096
PAGING = {"nonpaging": 0, "2-level": 2, "pae": 3, "4-level": 4, "5-level": 5}  # mode -> levels of the guest's tables
NPT = {"npt-2-level": 2, "npt-pae": 3, "npt-4-level": 4, "npt-5-level": 5}  # mode -> levels of the NPT below an L2 without paging
EPT = {"ept-4-level": 4, "ept-5-level": 5}  # likewise of the EPT, where L1 runs on a CPU with VMX
LEVELS = PAGING | NPT
MODES = tuple(LEVELS | EPT)
AC = 1 << 8  # in the `access` of an operation: EFLAGS.AC is set
DONE_AGAIN, WRITES_TABLES = 1 << 10, 1 << 11  # in that of a CPU's: what would be emulated may be done again; one that writes tables
IMPLICIT = 1 << 9  # in that of an emulated one: the CPU itself accesses, as a supervisor
TABLES = 22  # guest pages 1.. that hold tables; the first ROOTS are roots
ROOTS = 6
FRAMES = 93  # small guest pages, of the first two slots
SLOTS = {0: (0, 64), 1: (64, 29), 2: (512, 1536)}  # slot -> (first page, pages)
HOLDS_LARGE = 2  # the slot in which large pages fit
ALIAS, ALIASED = 3, (200, 29)  # a slot that now and then maps the host memory of slot 1, too; never tables
HOST_PAGES = {slot: first for slot, (first, _) in SLOTS.items()} | {
    ALIAS: SLOTS[1][0]
}  # slot -> page of host memory; now and then otherwise
LARGE_FRAMES = (0, 512, 1024, 1536)  # where large pages lie: backed by small slots, or by one that holds them
TABLE_FRAMES = (512, 513, 1024)  # where a table is now and then: inside a large page, two of them at its first frame
MOVED = 160  # where slot 1 is moved to, page
GUEST, HOST = Features(maxphyaddr=40), Features(maxphyaddr=46)  # of AMD; another vendor changes `amd`
OBSOLETE, MOVE_PAGE = 1, 2  # what may happen elsewhere during a fault: the engine's numbers
USER_MIB = 8  # host memory behind all slots

# Addresses that differ in every index of every mode, and pages beside each other
LOW = (
    *(base + page for base in (0, 0x200000, 0x40000000) for page in (0, 0x1000, 0x7000)),  # an aligned group of eight has three
    *(base + page for base in (0x400000, 0xC0000000, 0xFFE00000) for page in (0, 0x1000, 0x155000)),
    0x1FF000,
)
LONG = (*(0x8000000000 + low for low in (0, 0x1000, 0x200000, 0x40000000)), *(0xFFFFFFFF80000000 + low for low in (0, 0x1000, 0x200000)))
LA57 = (*(0x1000000000000 + low for low in (0, 0x1000)), *(0xFF00000000000000 + low for low in (0, 0x40001000)))
WATCHED = LOW + LONG + LA57
REACH = {0: LOW, 2: LOW, 3: LOW, 4: LOW + LONG, 5: WATCHED}  # levels of paging -> watched addresses that it can name
NPT_REACH = {levels: tuple(a for a in REACH[levels] if not a >> GUEST.maxphyaddr) for levels in NPT.values()}  # physical addresses


class Kind(IntEnum):
    """What an operation does; its four arguments in brackets."""

    ACCESS = 0  # by the CPU [gva, access, size, value]
    EMULATED = 1  # by an emulated instruction [gva, access, size, value]
    POKE = 2  # emulated store to a guest-physical address [gpa, size, value]
    INVLPG = 3  # [gva]
    CR0 = 4  # write of one register [value]
    CR3 = 5
    CR4 = 6
    EFER = 7
    MODE = 8  # paging off, CR4, EFER and CR3 written, paging on again [cr0, cr3, cr4, efer]
    SLOT = 9  # delete, or make with these flags [slot, first page, pages, readonly | log_dirty << 1]
    SWAP = 10  # the host moves pages to other frames [first guest page, pages]
    PROTECT = 11  # the host takes or gives back its right to write a page [guest page, writable]
    ZAP_ALL = 12  # zap_all_fast
    DIRTY = 13  # get_dirty_log, compared with what was written [slot]
    VMRUN = 14  # L1 enters an L2 without nested paging [cr0, cr3, cr4, efer]
    VMEXIT = 15  # back to L1
    L1_STORE = 16  # L1 leaves L2, stores through its own mapping, or its page walk does, and runs L2 again [gpa, size, value, walk]
    L2_MODE = 17  # L1 runs L2 with these registers, on its nested tables [cr0, cr3, cr4, efer]
    L2_REGISTER = 18  # L2 writes CR0, CR3 (no exit), CR4 or EFER [number from 0, value]
    RACE = 19  # an access; while its fault is served the other vCPU stores [gva, access | point << 12 | size << 16, gpa, value]
    OUTSIDE = 20  # a device or the host's user space stores to guest memory; the MMU is not told [gpa, size, value]
    HOST = 21  # 0: user space sets how many shadow pages there may be, 1: another task wants the CPU after so many synced pages,
    # 2: the host's tables of a guest page change, its frame does not, 3: it looks whether a guest page is in use,
    # 4: a guest page is no longer shadowed [which, number]
    MEANWHILE = 22  # an access; meanwhile all pages become obsolete, or the host moves a page [gva, access | event << 16, gfn, value]
    SMM = 23  # all CPUs go into system-management mode, or leave it [into]
    ILLEGAL = 25  # a register write that a CPU refuses; L2's nCR3 if L1 has nested tables [number from 0, value]
    EPT_RUN = 27  # L1 runs an L2 without paging on its extended page tables [EPT pointer]
    INSTRUCTION = 26  # it is fetched at one address, and does an access of 8 bytes at another [fetched at, gva, access, value]
    PKRU = 28  # the rights of protection keys, by an L2 on nested tables or, where only L1 has keys, by that [value]
    BEYOND = 24  # L2 reaches for an address that its L1's 2-level or PAE NPT cannot name [L2 physical address, access]


class Op(NamedTuple):
    """One operation of one vCPU."""

    kind: int
    vcpu: int
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


class Setup(NamedTuple):
    """What an episode is besides its operations."""

    seed: int
    roots: str = "special"
    modes: tuple[str, ...] = MODES
    audit_every: int = 1
    kernel: str = DEFAULT_KERNEL


def describe(op: Op) -> str:
    """An operation in words, one line."""
    arguments = " ".join(f"{value:#x}" for value in op[2:])
    return f"{Kind(op.kind).name.lower()} on vcpu {op.vcpu} [{arguments}]"
