# SPDX-License-Identifier: GPL-2.0-only
"""Register writes that are #GP by the manuals: the engine refuses each, and a judge of its own says which they are."""

import pytest

from shadowmmu import Vm
from shadowmmu.check.fuzz.draw import Draw
from shadowmmu.check.fuzz.illegal import CR4_NOT_OFFERED, Registers, invent, is_refused

WIDTH = 40
UNPAGED, LONG, PAE, TWO_LEVEL = (
    (0x31, 0, 0, 0),
    (0x80010031, 0x1000, 0x20020, 0x500),
    (0x80010031, 0x1000, 0x20, 0),
    (0x80010031, 0x1000, 0x10, 0),
)


@pytest.mark.parametrize(
    ("now", "number", "value", "refused"),
    [
        (UNPAGED, 0, 0x31 | 1 << 29, True),  # NW without CD
        (UNPAGED, 0, 0x31 | 3 << 29, False),
        (UNPAGED, 0, 0x80000030, True),  # PG without PE
        (UNPAGED, 0, 1 << 32 | 0x31, True),
        (LONG, 0, 0x31, True),  # with PCIDs on, paging stays
        (LONG, 1, 1 << 40, True),
        (LONG, 1, 1 << 63 | 0x1000, False),  # keeps translations
        (UNPAGED, 1, 1 << 40, False),
        (LONG, 2, 0x20000, True),  # PAE stays
        (LONG, 2, 0x21020, True),  # LA57 too
        (LONG, 2, 0x420020, True),  # no protection keys under shadow paging
        (PAE, 2, 0x20020, True),  # no PCIDs outside long mode
        (TWO_LEVEL, 2, 1 << 33, True),
        (PAE, 3, 0x100, True),  # LME with paging on
        (UNPAGED, 3, 0x900, False),
        (UNPAGED, 3, 1 << 40, True),
    ],
)
def test_what_the_manuals_say(now: Registers, number: int, value: int, refused: bool) -> None:
    assert is_refused(number, value, now, WIDTH) == refused


@pytest.mark.parametrize("now", [UNPAGED, LONG, PAE, TWO_LEVEL])
def test_the_engine_refuses_what_is_invented(now: Registers) -> None:
    vm, random, refusals = Vm(memory_mib=4, maxphyaddr=WIDTH, cr4_reserved=CR4_NOT_OFFERED), Draw("1"), 0
    vcpu = vm.vcpus[0]
    for _ in range(200):
        assert vcpu.set_sregs(*now)
        number, value = invent(random, (*now[:3], now[3] & ~0x400), WIDTH)
        if is_refused(number, value, (*now[:3], now[3] & ~0x400), WIDTH):
            refusals += 1
            assert not getattr(vcpu, ("set_cr0", "set_cr3", "set_cr4", "set_efer")[number])(value), (number, hex(value))
            assert (vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer) == now
    assert refusals > 50
