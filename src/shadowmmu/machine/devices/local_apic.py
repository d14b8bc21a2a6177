# SPDX-License-Identifier: GPL-2.0-only
"""The local APIC of one vCPU (KVM: lapic.c): what waits for it, in which order, and the registers, as xAPIC and as x2APIC.

What it tells its vCPU it does not tell by itself: the vCPU looks at `attention` before each entry. Sources: SDM vol. 3
chapter 11, APM vol. 2 chapter 16; where they leave a choice, as KVM does it.
"""

from collections.abc import Callable

from shadowmmu.machine.devices.apic_bus import ApicBus, Message
from shadowmmu.machine.devices.apic_registers import (
    ASSERT,
    BASE_BSP,
    BASE_ENABLED,
    BASE_X2APIC,
    BUSY,
    DEFAULT_BASE,
    FIRST_VECTOR,
    ILLEGAL_VECTOR_RECEIVED,
    ILLEGAL_VECTOR_SENT,
    LVT_WRITABLE,
    MASKED,
    MODE_SHIFT,
    SOFTWARE_ENABLED,
    VECTOR,
    ApicReg,
    Delivery,
)
from shadowmmu.machine.devices.apic_timer import ApicTimer
from shadowmmu.machine.devices.clock import Clock

_VERSION = 0x50014  # integrated, six LVT entries
_FLAT = 0xFFFFFFFF
_BITS = {ApicReg.ISR: "isr", ApicReg.TMR: "tmr", ApicReg.IRR: "irr"}
_MASK32 = 0xFFFFFFFF


class LocalApic:
    """`extint` acknowledges the interrupt of the old controllers, which are wired to LINT0; None: they have none."""

    def __init__(self, number: int, clock: Clock, bus: ApicBus, extint: Callable[[], int | None] = lambda: None) -> None:
        self.number = number
        self.base = DEFAULT_BASE | BASE_ENABLED | (0 if number else BASE_BSP)
        self.timer = ApicTimer(clock, self._timer_fires)
        self._bus, self._extint = bus, extint
        self.nmis = 0
        self.smi = self.init = False
        self.begins_at: int | None = None
        """Where the vCPU begins after INIT; None: where a reset leads, or where a SIPI says."""
        self.startup: int | None = None
        """The vector of a SIPI that has come."""
        self.extint_line = False
        """The old controllers ask for an interrupt."""
        self.reset()
        bus.join(self)

    def reset(self) -> None:
        """By INIT; APIC_BASE stays as it is."""
        self.irr = self.isr = self.tmr = 0
        self.tpr = 0
        self.esr = self._errors = 0
        self.icr = 0
        self.id = self.number
        self.ldr, self.dfr, self.spurious = 0, _FLAT, 0xFF
        self.lvt = dict.fromkeys(LVT_WRITABLE, MASKED)
        if self.base & BASE_BSP:
            self.lvt[ApicReg.LVT_LINT0] = Delivery.EXTINT << MODE_SHIFT  # as firmware leaves it
        self.timer.reset()

    # --- modes

    @property
    def enabled(self) -> bool:
        return bool(self.base & BASE_ENABLED)

    @property
    def x2apic(self) -> bool:
        return bool(self.base & BASE_X2APIC)

    @property
    def accepts(self) -> bool:
        """It is enabled by software, too."""
        return self.enabled and bool(self.spurious & SOFTWARE_ENABLED)

    def set_base(self, value: int) -> bool:
        """WRMSR of APIC_BASE; False: there is no such change of mode (SDM vol. 3 section 11.12.5)."""
        new, old = value & (BASE_ENABLED | BASE_X2APIC), self.base & (BASE_ENABLED | BASE_X2APIC)
        if new == BASE_X2APIC or (new == BASE_ENABLED and old == BASE_ENABLED | BASE_X2APIC):
            return False
        if new == BASE_ENABLED | BASE_X2APIC and not old:
            return False
        self.base = value
        if new == BASE_ENABLED | BASE_X2APIC:
            self.id = self.number
            self.ldr = (self.number >> 4) << 16 | 1 << (self.number & 15)
        elif new and not old:
            self.id = self.number
        return True

    # --- what waits

    @property
    def attention(self) -> bool:
        """Something may be there for the vCPU."""
        return bool(self.irr or self.nmis or self.smi or self.init or self.extint_line or self.startup is not None)

    @property
    def ppr(self) -> int:
        """Processor priority: that of the task or of the interrupt in service, whichever is higher."""
        serving = self.isr.bit_length() - 1 if self.isr else 0
        return self.tpr if self.tpr >> 4 >= serving >> 4 else serving & 0xF0

    def has_interrupt(self) -> bool:
        """One that the priorities let through."""
        if self._takes_extint():
            return True
        return self.accepts and self.irr != 0 and self.irr.bit_length() - 1 >> 4 > self.ppr >> 4

    def _takes_extint(self) -> bool:
        if not self.extint_line:
            return False
        entry = self.lvt[ApicReg.LVT_LINT0]
        return not self.enabled or (not entry & MASKED and entry >> MODE_SHIFT & 7 == Delivery.EXTINT)

    def acknowledge(self) -> int | None:
        """The vector of the interrupt, which is in service from now on."""
        if self._takes_extint():
            return self._extint()
        vector = self.irr.bit_length() - 1
        self.irr &= ~(1 << vector)
        self.isr |= 1 << vector
        return vector

    def end_of_interrupt(self) -> None:
        """For the highest in service; the I/O APIC hears of one that is level-triggered."""
        if not self.isr:
            return
        vector = self.isr.bit_length() - 1
        self.isr &= ~(1 << vector)
        if self.tmr >> vector & 1:
            self._bus.end_of_interrupt(vector)

    def take(self, message: Message) -> None:
        """One that the bus has found to be for this APIC."""
        if message.mode is Delivery.NMI:
            self.nmis = min(self.nmis + 1, 2)
        elif message.mode is Delivery.SMI:
            self.smi = True
        elif message.mode is Delivery.INIT:
            self.init, self.startup = True, None
        elif message.mode is Delivery.STARTUP:
            self.startup = message.vector
        elif message.mode in (Delivery.FIXED, Delivery.LOWEST_PRIORITY) and self.accepts:
            self._take_vector(message.vector, message.level)

    def _take_vector(self, vector: int, level: bool) -> None:
        if vector < FIRST_VECTOR:
            self._error(ILLEGAL_VECTOR_RECEIVED)
            return
        self.irr |= 1 << vector
        self.tmr = self.tmr | 1 << vector if level else self.tmr & ~(1 << vector)

    def _error(self, bit: int) -> None:
        self._errors |= bit
        self._fire(ApicReg.LVT_ERROR)

    def _timer_fires(self) -> None:
        self._fire(ApicReg.LVT_TIMER)

    def _fire(self, entry: ApicReg) -> None:
        """An interrupt of the APIC's own, by its entry of the local vector table."""
        value = self.lvt[entry]
        if not value & MASKED and self.enabled:
            fixed = entry in (ApicReg.LVT_TIMER, ApicReg.LVT_ERROR)
            self.take(Message(Delivery.FIXED if fixed else Delivery(value >> MODE_SHIFT & 7), value & VECTOR))

    def raise_lint0(self) -> None:
        """The old timer's line, if it is wired as an NMI watchdog wants it."""
        if self.lvt[ApicReg.LVT_LINT0] >> MODE_SHIFT & 7 != Delivery.EXTINT:
            self._fire(ApicReg.LVT_LINT0)

    # --- registers

    def read_register(self, offset: int) -> int:
        """By its offset in the page; unknown ones read as 0."""
        if offset & ~0x70 in _BITS:
            which = ApicReg(offset & ~0x70)
            bits: int = getattr(self, _BITS[which])
            return bits >> 2 * (offset & 0x70) & _MASK32
        if offset in self.lvt:
            return self.lvt[ApicReg(offset)]
        read = _READS.get(offset)
        return 0 if read is None else read(self) & _MASK32

    def write_register(self, offset: int, value: int) -> None:
        """By its offset in the page; those that can only be read keep their value."""
        if offset in self.lvt:
            self._write_lvt(ApicReg(offset), value)
            return
        write = _WRITES.get(offset)
        if write is not None:
            write(self, value)

    def _write_lvt(self, entry: ApicReg, value: int) -> None:
        value &= LVT_WRITABLE[entry] & ~BUSY
        self.lvt[entry] = value if self.spurious & SOFTWARE_ENABLED else value | MASKED
        if entry is ApicReg.LVT_TIMER:
            self.timer.set_mode(min(value >> 17 & 3, 2))

    def set_tpr(self, value: int) -> None:
        self.tpr = value & 0xFF

    def _set_spurious(self, value: int) -> None:
        self.spurious = value & 0x3FF
        if not value & SOFTWARE_ENABLED:
            for entry in self.lvt:
                self.lvt[entry] |= MASKED

    def _set_esr(self, _value: int) -> None:
        self.esr, self._errors = self._errors, 0

    def _set_icr_low(self, value: int) -> None:
        self.send(self.icr & ~_MASK32 | value)

    def _set_icr_high(self, value: int) -> None:
        self.icr = self.icr & _MASK32 | (value & 0xFF000000) << 32

    def send(self, icr: int) -> None:
        """An interprocessor interrupt."""
        self.icr = icr & ~BUSY
        mode = icr >> MODE_SHIFT & 7
        if mode in (Delivery.FIXED, Delivery.LOWEST_PRIORITY) and icr & VECTOR < FIRST_VECTOR:
            self._error(ILLEGAL_VECTOR_SENT)
            return
        if mode == Delivery.INIT and not icr & ASSERT:
            return  # the end of one, for processors long gone
        self._bus.send_ipi(self, icr)

    def send_to_set(self, targets: int, icr: int) -> int:
        """One message to all APICs whose bit is set; how many heard it."""
        message = Message(Delivery.NMI if icr >> MODE_SHIFT & 7 == Delivery.NMI else Delivery.FIXED, icr & VECTOR)
        return sum(
            self._bus.send(message, number, logical=False, wide=True) for number in range(targets.bit_length()) if targets >> number & 1
        )

    def _send_to_self(self, value: int) -> None:
        self.take(Message(Delivery.FIXED, value & VECTOR))

    def _set_id(self, value: int) -> None:
        if not self.x2apic:
            self.id = value >> 24

    def _set_ldr(self, value: int) -> None:
        self.ldr = value & 0xFF000000

    def _set_dfr(self, value: int) -> None:
        self.dfr = value | 0x0FFFFFFF

    def _eoi(self, _value: int) -> None:
        self.end_of_interrupt()

    def _set_divide(self, value: int) -> None:
        self.timer.set_divide(value & 0xB)

    def _set_initial(self, value: int) -> None:
        self.timer.set_initial(value)

    # --- in memory: `mmio_bus.MmioDevice`

    def claims(self, gpa: int) -> bool:
        return self.enabled and not self.x2apic and gpa >> 12 == self.base >> 12

    def read(self, gpa: int, size: int) -> int:
        """As KVM does: any size within an aligned register."""
        offset = gpa & 0xFF0
        value = self.id << 24 if offset == ApicReg.ID else self.read_register(offset)
        return value >> 8 * (gpa & 3)

    def write(self, gpa: int, size: int, value: int) -> None:
        """Of aligned 32 bits; others go nowhere."""
        if size == 4 and not gpa & 0xF:
            self.write_register(gpa & 0xFF0, value)


_READS: dict[int, Callable[[LocalApic], int]] = {
    ApicReg.ID: lambda apic: apic.id,
    ApicReg.VERSION: lambda apic: _VERSION,
    ApicReg.TPR: lambda apic: apic.tpr,
    ApicReg.PPR: lambda apic: apic.ppr,
    ApicReg.LDR: lambda apic: apic.ldr,
    ApicReg.DFR: lambda apic: apic.dfr,
    ApicReg.SPURIOUS: lambda apic: apic.spurious,
    ApicReg.ESR: lambda apic: apic.esr,
    ApicReg.ICR: lambda apic: apic.icr,
    ApicReg.ICR_HIGH: lambda apic: apic.icr >> 32,
    ApicReg.TIMER_INITIAL: lambda apic: apic.timer.initial,
    ApicReg.TIMER_CURRENT: lambda apic: apic.timer.current,
    ApicReg.TIMER_DIVIDE: lambda apic: apic.timer.divide_configuration,
}
_WRITES: dict[int, Callable[[LocalApic, int], None]] = {
    ApicReg.ID: LocalApic._set_id,
    ApicReg.TPR: LocalApic.set_tpr,
    ApicReg.EOI: LocalApic._eoi,
    ApicReg.LDR: LocalApic._set_ldr,
    ApicReg.DFR: LocalApic._set_dfr,
    ApicReg.SPURIOUS: LocalApic._set_spurious,
    ApicReg.ESR: LocalApic._set_esr,
    ApicReg.ICR: LocalApic._set_icr_low,
    ApicReg.ICR_HIGH: LocalApic._set_icr_high,
    ApicReg.TIMER_INITIAL: LocalApic._set_initial,
    ApicReg.TIMER_DIVIDE: LocalApic._set_divide,
    ApicReg.SELF_IPI: LocalApic._send_to_self,
}
