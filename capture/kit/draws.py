# SPDX-License-Identifier: GPL-2.0-only
"""What a hunt draws beside its guests' operations: the captured machine, boot by boot, and what the CPU of each guest lacks."""

from __future__ import annotations

import random

from kit.by_seed import BySeed
from kit.run import Host

ADDRESS_BITS = (0, 0, 36, 39, 46, 51)
"""Of the captured machine; 0: as many as QEMU gives it by itself, 40. No more than the engine has."""
PARAMETERS = (
    (), (), ("mmio_caching=0",), ("nx_huge_pages=force",), ("mmio_caching=0", "nx_huge_pages=force"), ("eager_page_split=0",),
)  # fmt: skip
CPUS = (
    (), (), ("vendor GenuineIntel",), ("nofeature 80000001 edx 26",), ("physbits 36",), ("nofeature 7 ebx 7", "nofeature 7 ebx 20"),
    ("vendor GenuineIntel", "nofeature 80000001 edx 26", "physbits 36"),
)  # fmt: skip
"""Of another vendor; without 1 GiB pages; with fewer address bits; without SMEP and SMAP."""

BUSY = 0.25
"""Of the guests: that another task wants their CPU."""


def host_for(host: Host, seed: int) -> Host:
    """That of a boot whose first guests have this seed."""
    drawn = random.Random(f"host {seed}")
    bits, parameters = drawn.choice(ADDRESS_BITS), drawn.choice(PARAMETERS)
    return host._replace(address_bits=bits, parameters=host.parameters + parameters)


def draw_for(guest: BySeed) -> None:
    """What its CPU lacks, and whether it has that to itself."""
    drawn = random.Random(f"cpu {guest.mode.tag} {guest.seed}")
    guest.make_otherwise(drawn.choice(CPUS), ())
    guest.busy = drawn.random() < BUSY
