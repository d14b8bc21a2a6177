# SPDX-License-Identifier: GPL-2.0-only
"""The two old interrupt controllers, the second on line 2 of the first. Source: Intel 8259A data sheet."""

from collections.abc import Callable

FIRST, SECOND, EDGE_LEVEL = 0x20, 0xA0, 0x4D0
_CASCADE = 2
_SPURIOUS = 7
_INITIALISE, _NEEDS_ICW4, _SINGLE = 1 << 4, 1 << 0, 1 << 1
_READ_COMMAND, _SPECIFIC, _END, _ROTATE = 1 << 3, 1 << 6, 1 << 5, 1 << 7
_AUTO_END = 1 << 1
_FIRMWARE_FIRST, _FIRMWARE_SECOND = (0x08, 1 << _CASCADE, 1, 0xF8), (0x70, _CASCADE, 1, 0xFF)


class Pic:
    """One controller: ports +0 (command) and +1 (data). `on_change` is called when its output may have changed."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.lines = self.irr = self.isr = 0
        self.imr = 0xFF
        self.base = 0
        self.level = 0
        """Lines that are level-triggered, in the ELCR."""
        self._highest = 0
        self._step = 0  # initialisation words still to come: 2, 3, 4; 0: none
        self._needs_icw4 = self._auto_end = self._reads_isr = False

    def set_line(self, line: int, level: bool) -> None:
        bit = 1 << line
        if level and (not self.lines & bit or self.level & bit):
            self.irr |= bit
        elif not level:
            self.irr &= ~bit if self.level & bit else -1
        self.lines = self.lines | bit if level else self.lines & ~bit
        self._on_change()

    def _first(self, bits: int) -> int | None:
        """The line of highest priority."""
        for place in range(8):
            line = place + self._highest & 7
            if bits >> line & 1:
                return line
        return None

    @property
    def output(self) -> int | None:
        """The line that asks and may; None: none."""
        asks, serves = self._first(self.irr & ~self.imr), self._first(self.isr)
        if asks is None or (serves is not None and self._rank(serves) <= self._rank(asks)):
            return None
        return asks

    def _rank(self, line: int) -> int:
        return line - self._highest & 7

    def acknowledge(self) -> int:
        """The line, which is in service now; a request that has gone again is a spurious one."""
        line = self.output
        if line is None:
            return _SPURIOUS
        if not self._auto_end:
            self.isr |= 1 << line
        if not self.level >> line & 1:
            self.irr &= ~(1 << line)
        self._on_change()
        return line

    def read(self, offset: int, size: int) -> int:
        if offset:
            return self.imr
        return self.isr if self._reads_isr else self.irr

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if offset:
            self._write_data(value)
        elif value & _INITIALISE:
            self._initialise(value)
        elif value & _READ_COMMAND:
            self._reads_isr = value & 3 == 3 if value & 2 else self._reads_isr
        else:
            self._end_of_interrupt(value)
        self._on_change()

    def _initialise(self, value: int) -> None:
        self.irr = self.isr = self.imr = self._highest = 0
        self._reads_isr = self._auto_end = False
        self._needs_icw4, self._step = bool(value & _NEEDS_ICW4), 2

    def _write_data(self, value: int) -> None:
        if not self._step:
            self.imr = value
        elif self._step == 2:
            self.base, self._step = value & 0xF8, 3
        elif self._step == 3:
            self._step = 4 if self._needs_icw4 else 0
        else:
            self._auto_end, self._step = bool(value & _AUTO_END), 0

    def _end_of_interrupt(self, value: int) -> None:
        line = value & 7 if value & _SPECIFIC else self._first(self.isr)
        if value & _END and line is not None:
            self.isr &= ~(1 << line)
        if value & _ROTATE and line is not None:
            self._highest = line + 1 & 7


class PicPair:
    """`on_output` hears whether an interrupt is asked for."""

    def __init__(self, on_output: Callable[[bool], None]) -> None:
        self._on_output = on_output
        self.first = Pic(self._changed)
        self.second = Pic(self._cascade)

    def set_up(self) -> None:
        """As firmware leaves them: vectors 8h and 70h, the timer, the keyboard and the second controller let through."""
        for pic, words in ((self.first, _FIRMWARE_FIRST), (self.second, _FIRMWARE_SECOND)):
            pic.write(0, 1, _INITIALISE | _NEEDS_ICW4)
            for word in words:
                pic.write(1, 1, word)

    def set_line(self, line: int, level: bool) -> None:
        """Of 16."""
        (self.second if line & 8 else self.first).set_line(line & 7, level)

    def _cascade(self) -> None:
        asks = self.second.output is not None
        if asks != bool(self.first.lines >> _CASCADE & 1):
            self.first.set_line(_CASCADE, asks)
            self.first.irr &= ~0 if asks else ~(1 << _CASCADE)
            self._changed()

    def _changed(self) -> None:
        self._on_output(self.first.output is not None)

    def acknowledge(self) -> int:
        """The vector."""
        line = self.first.acknowledge()
        if line != _CASCADE:
            return self.first.base | line
        return self.second.base | self.second.acknowledge()


class EdgeLevelControl:
    """ELCR: a bit for each line that is level-triggered."""

    def __init__(self, pair: PicPair) -> None:
        self._pics = (pair.first, pair.second)

    def read(self, offset: int, size: int) -> int:
        return self._pics[offset].level

    def write(self, offset: int, size: int, value: int) -> None:
        self._pics[offset].level = value & (0xDE if offset else 0xF8)
