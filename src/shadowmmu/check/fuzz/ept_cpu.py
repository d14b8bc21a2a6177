# SPDX-License-Identifier: GPL-2.0-only
"""A CPU with EPT below an L2, and what L1's extended page tables allow it: each access, and all that the shadow allows, is judged."""

from contextlib import suppress
from typing import Any, NamedTuple

from shadowmmu.check.fuzz.operations import PAGE
from shadowmmu.check.fuzz.slots import Slots
from shadowmmu.hardware.host_memory import HostMemory, Violation
from shadowmmu.hardware.second_level import Ept, SecondLevelFault
from shadowmmu.hardware.walk import ADDRESS, FETCH, GUEST_FINAL, GUEST_TABLE, LARGE, PRESENT, RESERVED, USER, WRITE

KINDS = {1: "read", 2: "write", 4: "fetch"}
ACCESS = {1: 0, 2: WRITE, 4: FETCH}  # rights of an EPT entry, and the access that needs each
AD = 0x40  # in an EPT pointer: A and D are used
LIMIT = 12  # exits that one access may take
REACHED = tuple(
    sorted(
        {
            sum(i << 12 + 9 * n for n, i in enumerate(path))
            for path in ((0, 0), (1, 0), (7, 0), (0, 1), (1, 1), (2, 511), (0, 0, 1), (1, 0, 1), (2, 3, 2), (0, 0, 0, 1))
        }
    )
)
"""L2 physical addresses that are watched."""
OWN = tuple(page * PAGE for page in (1, 5, 9, 13, 30, 64, 512, 519, 1024))
"""L1's own that are."""

Pairs = dict[int, set[tuple[int, int]]]


class L1Tables(NamedTuple):
    """L1's extended page tables, read as the manual says."""

    slots: Slots
    maxphyaddr: int
    exec_only: bool

    def at(self, eptp: int) -> Ept:
        return Ept(lambda gpa, size: self.slots.peek(gpa, size), lambda *_: None, eptp, self.maxphyaddr, self.exec_only)


class EptCpu:
    """One vCPU, the CPU below it, and what its L2 may use.

    seen    for each address the (right, L1 page) pairs that L1's tables gave at some moment since VM entry; None: L1 runs
    fresh   no table has changed since
    held    what the shadow allowed at the last entry: (address, right) -> host page
    """

    def __init__(self, vcpu: Any, memory: HostMemory, slots: Slots, tables: L1Tables, host_maxphyaddr: int) -> None:
        self.vcpu, self.memory, self.slots, self.tables, self.host_maxphyaddr = vcpu, memory, slots, tables, host_maxphyaddr
        self.eptp = 0
        self.seen: Pairs | None = None
        self.fresh = True
        self.held: dict[tuple[int, int], int] = {}
        self.root = 0

    # --- L1 and L2

    def leave(self) -> bool:
        """To L1, if an L2 runs."""
        if self.seen is None:
            return False
        if not self.vcpu.nested_vmexit():
            raise Violation(f"vcpu {self.vcpu.id}: L1 does not get back from its L2")
        self.seen = None
        return True

    def run(self, eptp: int) -> str:
        """L1 enters an L2 without paging on the tables at `eptp`."""
        self.leave()
        if not self.vcpu.nested_vmentry(cr0=1, cr3=0, cr4=0, efer=0, eptp=eptp, exec_only=self.tables.exec_only):
            raise Violation(f"vcpu {self.vcpu.id}: VM entry with EPT at {eptp:#x} refused")
        self.eptp, self.fresh = eptp, True
        self.seen = {gpa: set() for gpa in REACHED}
        self._see(self.seen)
        return "with A/D" if eptp & AD else "without A/D"

    def _see(self, seen: Pairs) -> None:
        """Add what L1's tables give now."""
        tables = self.tables.at(self.eptp)
        for gpa, pairs in seen.items():
            with suppress(SecondLevelFault):
                page, allowed, _ = tables.reach(gpa)
                pairs.update((right, page) for right in KINDS if allowed & right)

    def tables_changed(self) -> None:
        """Somebody has stored to memory."""
        if self.seen is not None:
            self.fresh = False
            self._see(self.seen)

    def aged(self, frame: int) -> None:
        """Without A and D a look at what is in use takes all rights, of a large page around it too, to see the next use; a TLB may go on
        with them."""
        self.held = {key: hpa for key, hpa in self.held.items() if hpa >> 21 != frame >> 21}

    # --- the CPU

    def enter(self) -> Ept:
        """VM entry: an address that it may hold leads where it did, to be written if it was (I11), and what is newly allowed L1 has
        allowed (I12). The tables that it walks."""
        entry = self.vcpu.enter()
        now = self._allowed(entry.root, entry.level)
        held = {} if entry.flush_all else {key: hpa for key, hpa in self.held.items() if key[0] not in entry.flush_gvas}
        if held and entry.root != self.root:
            raise self._violation(f"I11: enters the guest on root {entry.root:#x} with what the TLB holds of root {self.root:#x}")
        for (gpa, right), hpa in held.items():
            if now.get((gpa, right)) != hpa and (right == 2 or hpa not in (now.get((gpa, kind)) for kind in KINDS)):
                raise self._violation(
                    f"I11: enters the guest with {gpa:#x} in its TLB, to {KINDS[right]} {hpa:#x}, which no entry allows any more"
                )
        for (gpa, right), hpa in now.items():
            if held.get((gpa, right)) != hpa:
                self._judge(gpa, right, hpa)
        self.held, self.root = now, entry.root
        ad = AD if self.seen is None or self.eptp & AD else 0
        return Ept(self.memory.read, self.memory.write, entry.root | entry.level - 1 << 3 | 6 | ad, self.host_maxphyaddr)

    def _allowed(self, root: int, level: int) -> dict[tuple[int, int], int]:
        """All that the shadow allows of the watched addresses."""
        found: dict[tuple[int, int], int] = {}
        for gpa in OWN if self.seen is None else REACHED:
            rights, hpa = self._walk(root, level, gpa)
            found |= {(gpa, right): hpa for right in KINDS if rights & right}
        return found

    def _walk(self, at: int, level: int, gpa: int) -> tuple[int, int]:
        """The rights that the shadow gives to one address, and where it leads. An entry of W without R is misconfigured."""
        rights = 7
        while True:
            shift = 12 + 9 * (level - 1)
            entry = self.memory.read(at + (gpa >> shift & 511) * 8, 8)
            rights &= entry
            if not rights or entry & 3 == 2:
                return 0, 0
            at, level = entry & ADDRESS, level - 1
            if not level or entry & LARGE:
                return rights, at & -1 << shift | gpa & (1 << shift) - 1

    def access(self, gpa: int, right: int, size: int, value: int | None) -> tuple[str, int | None]:
        """One load, store or fetch to its end: how it ended, and where it stored."""
        if self.seen is not None and gpa & -PAGE not in REACHED:
            gpa = REACHED[(gpa >> 12) % len(REACHED)] | gpa & PAGE - 1
        before = self.entries(gpa) if self.seen is not None and not self.eptp & AD else []
        for _ in range(LIMIT):
            tables = self.enter()
            try:
                hpa = tables.translate(gpa & -PAGE, ACCESS[right], False)
            except SecondLevelFault as fault:
                outcome = self.vcpu.page_fault(gpa, error_code(fault.code)).name
                if outcome == "INJECT":
                    self._judge_fault(gpa, right)
                    return "injected", None
                if outcome == "EMULATE":
                    return self._emulate(gpa, right, size, value)
                continue
            self._judge(gpa & -PAGE, right, hpa)
            self._judge_marks(gpa & -PAGE, right, before)
            if value is None:
                return "completed", None
            self.memory.write(hpa | gpa & 0xFFF, size, value)
            return "completed", hpa | gpa & 0xFFF
        raise self._violation(f"no progress: {KINDS[right]} of {gpa:#x} took {LIMIT} exits")

    def _emulate(self, gpa: int, right: int, size: int, value: int | None) -> tuple[str, int | None]:
        """No memory, or a store to a table that is shadowed."""
        if right == 4:
            return "from no memory", None  # no machine emulates that
        own = gpa if self.seen is None else self.vcpu.gva_to_gpa(gpa, ACCESS[right])
        if own is None:
            self._judge_fault(gpa, right)
            return "injected when emulated", None
        if self.seen is not None and (right, own & -PAGE) not in self.seen[gpa & -PAGE]:
            raise self._violation(f"L2's {gpa:#x} is emulated ({KINDS[right]}) at {own:#x}, L1 allows {self._describe(gpa, right)}")
        if value is None or not self.vcpu.write_emulated(own, value.to_bytes(size, "little")):
            return "emulated", None
        return "emulated", self.slots.host(own)

    # --- the judge

    def _judge(self, gpa: int, right: int, hpa: int) -> None:
        """The CPU may use `hpa`, of a whole page."""
        pages = {gpa} if self.seen is None else {page for kind, page in self.seen[gpa] if kind == right}
        if not any(self.slots.host(page) == hpa and (right != 2 or self.slots.writable(page)) for page in pages):
            whose = "L1's" if self.seen is None else "L2's"
            raise self._violation(f"{whose} {KINDS[right]} of {gpa:#x} goes to host {hpa:#x}, allowed is {self._describe(gpa, right)}")

    def _describe(self, gpa: int, right: int) -> str:
        pages = [gpa] if self.seen is None else sorted(page for kind, page in self.seen[gpa & -PAGE] if kind == right)
        return ", ".join(f"{page:#x} (host {self.slots.host(page) or 0:#x})" for page in pages) or "nothing"

    def _judge_marks(self, gpa: int, right: int, before: list[tuple[int, int]]) -> None:
        """A translation in use has A in every entry of its path, and D in the leaf if it was written through (SDM 28.3.5); without A/D
        flags no entry has changed."""
        if self.seen is None or not self.fresh:
            return
        if not self.eptp & AD:
            if self.entries(gpa) != before:
                raise self._violation(f"{KINDS[right]} of {gpa:#x} has marked an entry of L1's, which has A/D off")
            return

        def write(pa: int, size: int, value: int) -> None:
            if self.slots.writable(pa):
                raise self._violation(f"L1's entry at {pa:#x} should have become {value:#x} before {gpa:#x} was used for a {KINDS[right]}")

        self.tables.at(self.eptp)._replace(write=write).translate(gpa, ACCESS[right], False)

    def entries(self, gpa: int) -> list[tuple[int, int]]:
        """L1's entries on the way of an address."""
        with suppress(SecondLevelFault):
            return self.tables.at(self.eptp).reach(gpa)[2]
        return []

    def _judge_fault(self, gpa: int, right: int) -> None:
        """The exit that L1 gets is the one its tables call for."""
        told = self.vcpu.exception
        if self.seen is None or told is None or not told.nested or told.cr2 & -PAGE != gpa & -PAGE:
            raise self._violation(f"a fault of {gpa:#x} is given to somebody, {'L1 runs' if self.seen is None else 'not as it is'}: {told}")
        try:
            self.tables.at(self.eptp).translate(gpa, ACCESS[right], False)
        except SecondLevelFault as fault:
            misconfigured = fault.code < 0
            rights = misconfigured or told.exit_qualification & 0x3F == fault.code & 0x3F
            if bool(told.error_code & RESERVED) != misconfigured or not rights:
                raise self._violation(f"L1 is told {told} of a {KINDS[right]} of {gpa:#x}, by its tables it is {fault.code:#x}") from None
        else:
            raise self._violation(f"L1 gets a fault for a {KINDS[right]} of {gpa:#x}, which its tables allow")

    def _violation(self, what: str) -> Violation:
        return Violation(f"vcpu {self.vcpu.id}: {what}")


def error_code(qualification: int) -> int:
    """What KVM makes of an exit qualification (handle_ept_violation); a misconfiguration is RSVD alone."""
    if qualification < 0:
        return RESERVED
    code = (qualification & 1 and USER) | (qualification & 2 and WRITE) | (qualification & 4 and FETCH) | (qualification & 0x38 and PRESENT)
    return code | (GUEST_FINAL if qualification & 0x100 else GUEST_TABLE)
