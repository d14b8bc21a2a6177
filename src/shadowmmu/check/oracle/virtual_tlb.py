# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""The rules that an access, a fault and a walk are judged by, of one vCPU; `oracle` says what they are."""

from collections.abc import Iterable
from typing import Any

from shadowmmu.check.oracle.prediction import PredictingTlb, Prediction
from shadowmmu.check.oracle.watched_guest import WatchedGuest
from shadowmmu.check.oracle.words import access_words, in_hex
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import Translation

PAGE_FAULT = 14


class VirtualTlb(PredictingTlb):
    """Everything that a bare CPU could hold of the guest's tables, for one vCPU, and what it follows from that."""

    def __init__(self, oracle: WatchedGuest, name: str) -> None:
        super().__init__(oracle, name)
        self.stores: set[int] | None = None
        """Of the access that completed last, a write to a page that several gfns have: those by which it can have gone."""

    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None:
        """Rule 1."""
        number = self.oracle.numbers.get(gva >> 12)
        if number is None and self.l2 is not None:
            return  # L2's tables led to an address that is not watched
        self.stores = set() if access & hw.WRITE and hpa >> 12 in self.oracle.aliased else None
        if self.stores is None and self.lets(gva, access, ac, hpa):
            return
        pages = self.possible(gva)
        kernel_pages = not self.mode.wp and not self.oracle.strict
        for page in pages:
            gpa, rights = page.address(gva), page.rights
            lifted = ac or (kernel_pages and not rights & hw.WRITE)
            clean = access & hw.WRITE and not (rights & hw.DIRTY and self.memory.writable(gpa))
            if self.memory.host(gpa) == hpa and self.mode.permits(rights, access, lifted) and not clean:
                if self.stores is None:
                    return
                self.stores.add(gpa >> 12)
        if self.stores:
            return
        what = f"{self.name}: {access_words(access)} of {gva:#x} went to host {hpa:#x}"
        raise Violation(f"{what}; the guest allowed only {self._describe_all(pages, gva)}")

    def lets(self, gva: int, access: int, ac: bool, hpa: int) -> bool:
        """The quick answer where there is one: the guest's tables let the access through. If not, `completed` says what they do."""
        if not self.mode.levels:
            stored = not access & hw.WRITE or self.memory.writable(gva)
            return stored and self.memory.host(gva) == hpa and self.mode.permits(hw.ALL, access, ac)
        number = self.oracle.numbers.get(gva >> 12)
        if number is None:
            return False
        found = False
        for space in self.spaces.values():
            found = found or space.lets(number, gva, access, ac, hpa, space is not self.space)
        return found

    def stored(self, hpa: int, size: int) -> None:
        self.oracle.stored(hpa, size)
        if self.stores is not None and len(self.stores) == 1:
            self.oracle.written |= self.stores

    def emulated_store(self, gpa: int, size: int) -> None:
        hpa = self.memory.host(gpa)
        if hpa is not None:
            self.oracle.stored(hpa, size)
            self.oracle.written.add(gpa >> 12)

    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[Any, ...] | None) -> None:
        """Rules 2, 3 and 4."""
        expected = self.prediction
        if expected is None:
            raise ValueError("after_walk without before_walk")
        if exception is not None:
            self._judge_fault(self._what(expected), expected, exception)
        elif outcome == "TRANSLATED" and (isinstance(expected.result, int) or gpa != expected.result.address(expected.gva)):
            wanted = self._outcome(expected.result, expected.address)
            raise Violation(f"{self._what(expected)}: translated to gpa {in_hex([gpa])} for the emulator, a bare CPU gives {wanted}")
        must = outcome in ("FIXED", "TRANSLATED") and isinstance(expected.result, Translation)
        self._judge_marks(expected, outcome, must, exception is not None)
        if outcome == "EMULATE" and isinstance(expected.result, Translation):
            gpa = expected.result.address(expected.gva)
            if self.memory.host(gpa) is None:
                self.unguarded.mmio.add(gpa >> 12)
        if outcome == "EMULATE" and not expected.access & hw.WRITE and (self.oracle.strict or not self.mode.levels):
            pages = self.possible(expected.gva)
            if pages and all(self.memory.host(t.address(expected.gva)) is not None for t in pages):
                raise Violation(f"{self._what(expected)}: is to be emulated, but it is memory: {self._describe_all(pages, expected.gva)}")
        drops = self.oracle.strict or not self.space.mixed
        if drops and exception is not None and exception[1] & (hw.PRESENT | hw.RESERVED) == hw.PRESENT:
            self.invlpg(expected.gva)

    def _judge_marks(self, expected: Prediction, outcome: str, must: bool, faulted: bool) -> None:
        """Rule 4."""
        half = expected.two_dimensions and faulted
        for number in range(self.present.seen):
            seen = self.present.entry[number]
            now, new = self.memory.value(seen.hpa, seen.size), self.present.marked(seen.hpa, seen.size, seen.value)
            if now != new and not (half and now == seen.value) and (must or faulted or now != seen.value):
                change = f"as {now:#x}, was {seen.value:#x}, a bare CPU makes it {new:#x}"
                raise Violation(f"{self._what(expected)}: {outcome} left guest entry at host {seen.hpa:#x} {change}")
            if now != seen.value:
                self.oracle.marked(seen.hpa, seen.size)

    def _what(self, expected: Prediction) -> str:
        return f"{self.name}: {access_words(expected.access)} of {expected.gva:#x}"

    def _judge_fault(self, what: str, expected: Prediction, exception: tuple[Any, ...]) -> None:
        vector, code, address = exception[:3]
        nested = len(exception) > 3 and bool(exception[3])
        if nested != expected.nested:
            whose = "L1" if nested else "the guest itself"
            raise Violation(
                f"{what}: fault {code:#x} at {address:#x} is for {whose}, a bare CPU: {self._outcome(expected.result, expected.address)}"
            )
        seen = code & 0xFFFFFFFF
        if nested and not self.mode.nx:
            seen &= ~hw.FETCH
        own = self.l2 is not None and expected.two_dimensions and not nested  # the fault of L2's own tables
        mode = self.l2.mode if own and self.l2 is not None else self.mode
        if not self.oracle.strict and mode.levels == 2 and (own or self.efer & hw.EFER_NXE) and expected.access & hw.FETCH:
            seen = code & ~hw.FETCH | mode.code(expected.access) & hw.FETCH
        if (vector, address, seen) != (PAGE_FAULT, expected.address, expected.result):
            got = f"exception {vector} code {code:#x} address {address:#x}"
            raise Violation(f"{what}: the guest gets {got}, a bare CPU gives {self._outcome(expected.result, expected.address)}")

    # --- words

    def _outcome(self, result: Translation | int, gva: int) -> str:
        return f"#PF code {result:#x}" if isinstance(result, int) else self._describe(result, gva)

    def _describe_all(self, pages: Iterable[Translation], gva: int) -> str:
        return ", ".join(self._describe(page, gva) for page in pages) or "nothing"

    def _describe(self, page: Translation, gva: int) -> str:
        gpa, r = page.address(gva), page.rights
        flags = "".join(name if r & bit else "-" for bit, name in ((2, "w"), (4, "u"), (8, "x"), (hw.DIRTY, "D"), (hw.GLOBAL, "G")))
        return f"gpa {gpa:#x} {flags} {1 << page.shift - 10}K (host {in_hex([self.memory.host(gpa)])})"
