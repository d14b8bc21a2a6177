# SPDX-License-Identifier: GPL-2.0-only
"""Two streams of events, the kernel's and the engine's, compared place by place as they grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shadowmmu import Vm
from shadowmmu.check.compare.ignore import INPUTS, NOISE, TDP_FIELDS, is_no_deed
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.compare.result import Diverged, Divergence, Page, Row, page_at
from shadowmmu.engine.arena.role import Role
from shadowmmu.engine.face.kernels import series_of
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.forms import FORMS

BEFORE = 6
"""Places shown before a divergence."""
AFTER = 4
_LEAVES = (e.SetSpte, e.SpteRequested, e.FastPageFault, e.MarkMmioSpte, e.HandleMmioPageFault, e.CheckMmioSpte)
GUEST_MODE, DIRECT = int(Role.GUEST_MODE), int(Role.DIRECT)
_NOTHING: frozenset[str] = frozenset()


class Streams:
    """What the kernel did and what the engine did since both were last found equal."""

    def __init__(self, vm: Vm, matcher: Matcher, foreign_l1: Callable[[], bool], tdp_mmu: bool, operation: Callable[[], str]) -> None:
        self.vm = vm
        self.matcher = matcher
        self.foreign_l1 = foreign_l1
        """Whether the vCPU is now on tables of the TDP MMU."""
        self.tdp_mmu = tdp_mmu
        self.form = FORMS[series_of(vm.config.kernel)]
        self.operation = operation
        self.kernel: list[tuple[int, AnyEvent]] = []
        self.engine: list[AnyEvent] = []
        self.past: list[Row] = []
        self.equal_until = 0
        """The event of the capture before which both were last found equal."""
        self.compared = 0

    # --- growing

    def expect(self, index: int, event: AnyEvent) -> None:
        """The kernel did this; the engine must have or will."""
        if self.is_compared(event):
            self.kernel.append((index, event))

    def grow(self, events: Iterable[AnyEvent]) -> None:
        """The engine did this."""
        for event in events:
            if self.is_compared(event):
                self.engine.append(event)
            else:
                self.matcher.follow(event)

    def is_compared(self, event: AnyEvent) -> bool:
        if type(event) in INPUTS or type(event) in NOISE or is_no_deed(event, self.form):
            return False
        if self.tdp_mmu:
            if isinstance(event, e.PageEvent):
                return not event.role & DIRECT or bool(event.role & GUEST_MODE)
            return not (isinstance(event, _LEAVES) and self.foreign_l1())
        return True

    def engine_has_next(self) -> bool:
        """Whether the engine has already done what the kernel does next."""
        return len(self.engine) > len(self.kernel)

    def kernel_has(self, kind: type[AnyEvent]) -> bool:
        """Whether the kernel has done such a thing since, and it has not been compared."""
        return any(isinstance(event, kind) for _, event in self.kernel)

    def take_return(self) -> AnyEvent | None:
        """Take back the return code of a fault: the kernel may do more, in the emulator or at #VMEXIT, before it returns."""
        last = self.engine[-1] if self.engine else None
        return self.engine.pop() if isinstance(last, e.MmuPageFaultRet) else None

    def clear(self) -> None:
        """Leave out what was done so far, as at set-up."""
        self.kernel.clear()
        self.engine.clear()

    # --- comparing

    def compare(self, index: int) -> None:
        """Both streams must be equal up to here; then they start anew. Raises Diverged."""
        for at in range(max(len(self.kernel), len(self.engine))):
            kernel = self.kernel[at][1] if at < len(self.kernel) else None
            engine = self.engine[at] if at < len(self.engine) else None
            why = self._difference(kernel, engine)
            if why:
                where = self.kernel[at][0] if at < len(self.kernel) else index
                raise Diverged(self._report(at, where, why))
            assert engine is not None
            self.matcher.follow(engine)
            self.compared += 1
            self.past.append(Row(kernel, engine, False))
        del self.past[:-BEFORE]
        self.equal_until = index
        self.kernel.clear()
        self.engine.clear()

    def _difference(self, kernel: AnyEvent | None, engine: AnyEvent | None) -> str:
        if kernel is None:
            return f"the engine does {engine.name}, the kernel does not" if engine else ""
        if engine is None:
            return f"the kernel does {kernel.name}, the engine does not"
        fields = self.matcher.differences(kernel, engine, self._skipped(kernel))
        if fields == ["event"]:
            return f"the kernel does {kernel.name}, the engine {engine.name}"
        return f"{kernel.name} differs in {', '.join(fields)}" if fields else ""

    def _skipped(self, kernel: AnyEvent) -> frozenset[str]:
        """Fields that the TDP MMU's pages change."""
        if not self.tdp_mmu:
            return _NOTHING
        if type(kernel) not in TDP_FIELDS or (isinstance(kernel, e.LoadPgd) and not self.foreign_l1()):
            return _NOTHING
        return frozenset({TDP_FIELDS[type(kernel)][0]})

    def _report(self, at: int, index: int, why: str) -> Divergence:
        rows = self.past[-BEFORE:]
        for i in range(at, at + AFTER):
            kernel = self.kernel[i][1] if i < len(self.kernel) else None
            engine = self.engine[i] if i < len(self.engine) else None
            if kernel is not None or engine is not None:
                rows.append(Row(kernel, engine, i == at))
        shown = self.engine[at] if at < len(self.engine) else None
        return Divergence(why, index, self.operation(), rows, self.page(shown), self.equal_until)

    def page(self, event: AnyEvent | None) -> Page | None:
        """The shadow page that an event of the engine concerns."""
        at = next((int(getattr(event, name)) for name in ("sptep", "spt", "root") if getattr(event, name, 0)), 0)
        return page_at(self.vm, at) if at else None
