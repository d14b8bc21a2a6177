# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What the virtual TLBs of a VM share: its memory, the watched addresses, how entries are read, and the stores that reach them all."""

from collections.abc import Callable, Container, Iterable

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.shape import Shape
from shadowmmu.check.oracle.translations import AddressSpace
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.walk import Features, Paging, Step, bits, paging

Views = list[tuple[Paging, tuple[Step, ...]]]
"""The modes in which an entry may be read, and their steps: under which shadow pages may have been made."""


class WatchedGuest:
    """A guest, as far as it is the same for all of its vCPUs."""

    def __init__(self, memory: GuestMemory, watched: Iterable[int], features: Features, strict: bool = False) -> None:
        self.memory, self.features, self.strict = memory, features, strict
        self.maxphyaddr = features.maxphyaddr
        self.watched = tuple(sorted({gva >> 12 for gva in watched}))
        self.numbers = {page: number for number, page in enumerate(self.watched)}
        self.edits = 0  # stores that hit an entry of a watched address, for coverage
        self.dirty: set[int] = set()  # host pages written since the owner last took them out
        self.aliased: Container[int] = ()  # those that several gfns have; of these,
        self.written: set[int] = set()  # by which gfn they were, where only one can have been used
        self.unguarded = Unguarded()
        self._shapes: dict[int, Shape] = {}
        self._modes: dict[tuple[int, int, int], tuple[Paging, Views]] = {}
        self.spaces: list[dict[int, AddressSpace]] = []
        """Of each vCPU, by PCID."""

    def stored(self, hpa: int, size: int) -> None:
        """The guest has stored to [hpa, hpa + size), within one page."""
        self.unguarded.stored(hpa, size)
        self.marked(hpa, size)

    def marked(self, hpa: int, size: int) -> None:
        """A walk has set A or D in an entry there."""
        self.dirty.add(hpa >> 12)
        self._changed(hpa, size)

    def store_from_outside(self, hpa: int, size: int, store: Callable[[], None]) -> None:
        """A device or the host's user space stores there: tables that are shadowed may stay what they were, and no log is kept."""
        self.unguarded.store_from_outside(hpa, size, self.memory.read)
        store()
        self._changed(hpa, size)

    def _changed(self, hpa: int, size: int) -> None:
        spaces: dict[int, AddressSpace]
        space: AddressSpace
        for spaces in self.spaces:
            for space in spaces.values():
                self.edits += space.entries_changed(hpa, size)

    def memory_changed(self) -> None:
        """Memslots or the host's pages behind them have changed: look at every table again."""
        if not self.strict:
            self.unguarded.memory_changed(self.memory)
        for spaces in self.spaces:
            for space in spaces.values():
                space.look_again()

    def shape(self, mode: Paging) -> Shape:
        """The tree of watched addresses, cut as this mode cuts addresses."""
        if mode.levels not in self._shapes:
            self._shapes[mode.levels] = Shape(mode, self.watched)
        return self._shapes[mode.levels]

    def mode(self, cr0: int, cr4: int, efer: int) -> tuple[Paging, Views]:
        """The paging mode of these registers, and how entries may be read there."""
        key = cr0, cr4, efer
        if key not in self._modes:
            self._modes[key] = paging(cr0, cr4, efer, self.features), self._views(cr0, cr4, efer)
        return self._modes[key]

    def _views(self, cr0: int, cr4: int, efer: int) -> Views:
        mode = paging(cr0, cr4, efer, self.features)
        if self.strict or not mode.levels:
            return [(mode, mode.steps)]
        if mode.levels == 2:
            other = paging(cr0, cr4 ^ hw.CR4_PSE, efer, self.features)
            return [(mode, mode.steps), (other, other.steps)]
        other = paging(cr0, cr4, efer | hw.EFER_NXE, self.features)  # bit 63 counts as NX, bits 52-62 as ignored
        return [(other, tuple(step.without(bits(62, 52)) for step in other.steps))]
