# SPDX-License-Identifier: GPL-2.0-only
"""Blocks of translated code: what the hook before each has to know of it.

The engine writes into the code that it translates what a hook is to be given. So each block is given one of its own: when one has been
translated, what is known of it is filled in, and the next one is put in its place.

An instruction that reaches a port does so in the midst of its block, while the devices' time goes on and one may ask for a stop. So
where such stand the CPU has a hook before them, and before what is behind them, too.
"""

import cython
from cython.cimports.cpython.mem import PyMem_RawCalloc, PyMem_RawFree
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t, uintptr_t
from cython.cimports.shadowmmu.machine.cpu.block_code import LONGEST_BLOCK, begun_at, copy_code
from cython.cimports.shadowmmu.machine.cpu.stop_request import HEAVY, StopRequest, code_bits, offset_in, set_limit, stop

from shadowmmu.machine.cpu.block_decode import goes_on, ports_in
from shadowmmu.machine.seam import CpuError

HOOK_WORDS = 8  # of the engine's own record of a hook, in which what it is to be given stands


def on_translated(engine: cython.p_void, translated: TranslatedPtr, before: TranslatedPtr, data: cython.p_void) -> cython.void:
    """The engine's hook for a block that has been translated and is about to run."""
    counted: CountedPtr = cython.cast(CountedPtr, data)
    fill(engine, counted, cython.address(counted.blocks[counted.next]), translated)
    if counted.next < BLOCKS - 1:
        counted.next += 1
        counted.blocks[counted.next].request = cython.address(counted.nobody)
        counted.given[0] = cython.address(counted.blocks[counted.next])
    if counted.found or counted.next == BLOCKS - 1:
        stop(engine, counted.guest)


def fill(engine: cython.p_void, counted: CountedPtr, block: BlockPtr, translated: TranslatedPtr) -> cython.void:
    """An address at which the engine is to stop it takes for an instruction of no bytes."""
    block.pc, block.size, block.again = translated.pc, translated.size, False
    block.instructions = translated.instructions
    block.request = counted.guest
    if block.pc >> 12 == counted.own_page:
        block.request = cython.address(counted.nobody)
        return
    if block.pc + block.size == counted.until:
        block.instructions -= 1
    block.weight = block.instructions
    block.code[0] = code_at(engine, counted, block.pc)
    block.code[1] = cython.NULL
    if block.size and (block.pc + block.size - 1) >> 12 != block.pc >> 12:
        block.code[1] = code_at(engine, counted, (block.pc | 0xFFF) + 1)
    look_closely(engine, counted, block)


def code_at(engine: cython.p_void, counted: CountedPtr, linear: uint64_t) -> cython.pointer(uint8_t):
    """In this process; it has just been fetched."""
    place: uint64_t = 0
    i: cython.int
    if counted.translate(engine, linear, TO_FETCH, cython.address(place)) == 0:
        for i in range(counted.regions):
            if place - counted.region[i].hpa < counted.region[i].size:
                return counted.region[i].at + (place - counted.region[i].hpa)
    return cython.NULL


def look_closely(engine: cython.p_void, counted: CountedPtr, block: BlockPtr) -> cython.void:
    """If it may reach ports, or may have been cut off."""
    code: uint8_t[LONGEST_BLOCK]
    size: uint32_t = copy_code(block.code, block.pc, block.size, code)
    if size and counted.save != cython.NULL and (block.instructions == 1 or counted.ports > PORTS or may_reach_ports(code, size)):
        counted.save(engine, counted.context)
        block.bits = code_bits(counted.guest)
        decode(counted, block, code, size)


def may_reach_ports(code: cython.pointer(uint8_t), size: uint32_t) -> cython.bint:
    """One of its bytes can be an opcode of IN, OUT, INS or OUTS."""
    i: uint32_t
    found: cython.bint = False
    for i in range(size):
        found |= code[i] & 0xF4 == 0xE4 or code[i] & 0xFC == 0x6C
    return found


def decode(counted: CountedPtr, block: BlockPtr, code: cython.pointer(uint8_t), size: uint32_t) -> cython.void:
    found: object = code[:size]
    block.again = block.instructions == 1 and goes_on(found, block.bits)
    if block.again:
        block.weight = HEAVY
    for at, behind in ports_in(found, block.bits, block.pc):
        if counted.found < FOUND and not is_watched(counted, at):
            counted.found_at[counted.found], counted.found_behind[counted.found] = at, behind
            counted.found += 1


def is_watched(counted: CountedPtr, at: uint64_t) -> cython.bint:
    i: cython.int
    found: cython.bint = False
    for i in range(counted.ports):
        found |= counted.port[i].all or counted.port[i].at == at
    return found


# --- ports


def at_port(engine: cython.p_void, address: uint64_t, size: uint32_t, data: cython.p_void) -> cython.void:
    """The engine's hook before an instruction that reaches ports, and before what is behind it, where the rest of its block is counted."""
    port: PortPtr = cython.cast(PortPtr, data)
    request: RequestPtr = port.request
    if request.rest_of != cython.NULL and request.running == cython.NULL and request.port != address:
        if request.wanted or request.executed >= request.limit:
            request.emu_stop(engine)
            return
        request.executed += request.rest
        request.running, request.rest_of = request.rest_of, cython.NULL
    if (port.all or address == port.at) and request.running != cython.NULL:
        come_to_port(request, address)


def come_to_port(request: RequestPtr, address: uint64_t) -> cython.void:
    """Count what has begun."""
    block: BlockPtr = request.running
    offset: uint64_t = offset_in(block, address)
    if block.bits and offset < block.size:
        begun: uint64_t = begun_at(request.known, block.code, block.pc, offset, block.bits)
        begun = min(begun, cython.cast(uint64_t, block.instructions))
        request.rest, request.rest_of, request.port = block.instructions - begun, block, address
        request.executed -= request.rest
        request.running = cython.NULL


@cython.final
@cython.cclass
class Blocks:
    """Those of one CPU.

    regions    host memory as (hpa, size, address in this process)
    translate  address of the engine's function that tells where code lies
    own_page   number of the page of code that is not the guest's
    """

    def __init__(self, request: StopRequest, regions: object, translate: uintptr_t, own_page: uint64_t) -> None:
        i: cython.int
        self.request = request
        self.counted.guest = cython.address(request.request)
        set_limit(cython.address(self.counted.nobody), cython.cast(uint64_t, -1))
        self.counted.blocks = cython.cast(BlockPtr, PyMem_RawCalloc(BLOCKS, cython.sizeof(Block)))
        if self.counted.blocks == cython.NULL:
            raise MemoryError
        self.counted.blocks[0].request = cython.address(self.counted.nobody)
        self.counted.own_page, self.counted.until = own_page, cython.cast(uint64_t, -1)
        self.counted.translate = cython.cast(translate_t, translate)
        if len(regions) > REGIONS:
            raise CpuError(f"host memory lies in {len(regions)} pieces, more than {REGIONS}; report this as a bug")
        self.counted.regions = len(regions)
        for i in range(self.counted.regions):
            hpa, size, at = regions[i]
            self.counted.region[i].hpa, self.counted.region[i].size = hpa, size
            self.counted.region[i].at = cython.cast(cython.pointer(uint8_t), cython.cast(uintptr_t, at))

    def __dealloc__(self):
        PyMem_RawFree(self.counted.blocks)

    def attach(self, places: object) -> None:
        """Where the processor context is, and how it is read (`seam.Places`)."""
        self.counted.save = cython.cast(save_t, cython.cast(uintptr_t, places.save))
        self.counted.context = cython.cast(cython.p_void, cython.cast(uintptr_t, places.context))

    def hooked(self, hook: uintptr_t) -> None:
        """The engine's own record of the hook before blocks lies there. Raises CpuError if it does not tell what the hook is given."""
        i: cython.int
        found: cython.int = -1
        words: cython.pointer(cython.p_void) = cython.cast(cython.pointer(cython.p_void), hook)
        for i in range(HOOK_WORDS):
            if words[i] == cython.cast(cython.p_void, self.counted.blocks):
                if found >= 0:
                    raise CpuError("the CPU's record of a hook has what it is given twice; install unicorn==2.1.4")
                found = i
        if found < 0:
            raise CpuError("the CPU's record of a hook has not what it is given; install unicorn==2.1.4")
        self.counted.given = cython.address(words[found])

    @property
    def first(self):
        """Address of what the hook before blocks is to be given at first."""
        return cython.cast(uintptr_t, self.counted.blocks)

    @property
    def translated_hook(self):
        """Address of the hook for blocks that have been translated, a C function."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, on_translated))

    @property
    def port_hook(self):
        """That of the hook at ports."""
        return cython.cast(uintptr_t, cython.cast(cython.p_void, at_port))

    @property
    def data(self):
        """Address of what the hook for translated blocks is to be given."""
        return cython.cast(uintptr_t, cython.address(self.counted))

    def run_until(self, address: uint64_t):
        """The engine is to run until there."""
        self.counted.until = address

    @property
    def stopped(self):
        """The CPU has stopped before a block that it must translate anew: `watch` its ports, and `forget`."""
        return self.counted.found > 0 or self.counted.next == BLOCKS - 1

    @property
    def watched(self):
        """Instructions that reach ports and are watched."""
        return self.counted.ports

    def watch(self):
        """Ports that have been found: (what the hook is to be given, first address of it, last address); the last below the first: all."""
        i: cython.int
        watched: list = []
        for i in range(self.counted.found):
            port: PortPtr = cython.address(self.counted.port[self.counted.ports])
            if self.counted.ports <= PORTS:
                port.request, port.at, port.behind = self.counted.guest, self.counted.found_at[i], self.counted.found_behind[i]
                port.all = self.counted.ports == PORTS
                first: uint64_t = 1 if port.all else port.at
                last: uint64_t = 0 if port.all else port.behind
                watched.append((cython.cast(uintptr_t, port), first, last))
                self.counted.ports += 1
        self.counted.found = 0
        return watched

    def watch_all(self):
        """Let all instructions be watched; False: they are already."""
        if self.counted.ports > PORTS:
            return False
        self.counted.ports, self.counted.found = PORTS, 1
        return True

    def forget(self):
        """The engine has dropped all that it has translated, but for a block that runs, if a hook has it do so."""
        self.counted.next = 0
        self.counted.given[0] = self.counted.blocks
