# SPDX-License-Identifier: GPL-2.0-only
"""Whose shadow MMU an episode has, where a run is of any: the seed says. Code that one kernel or design alone has is reached, too."""

from random import Random

from shadowmmu.check.fuzz.operations import Setup
from shadowmmu.engine.face.kernels import KERNELS, rules_of
from shadowmmu.engine.roots.designs import ROOT_DESIGNS

ANY = "any"
OLDEST, NEWEST = next(iter(KERNELS)), list(KERNELS)[-1]
KINDS = (*KERNELS, f"{NEWEST}+zaps_slot_alone")
OFTEN = 4
"""How much oftener than each other the first design is drawn, and the oldest kernel: none has more paths through sync and INVLPG."""


def settle(setup: Setup) -> Setup:
    """The same, of one design and one kernel. A slot that goes alone is not drawn for bare roots, which it leaves with a table less."""
    random = Random(f"shadow MMU {setup.seed}")
    roots, kernel = (random.choices(kinds, [OFTEN] + [1] * (len(kinds) - 1))[0] for kinds in (tuple(ROOT_DESIGNS), KINDS))
    roots = roots if setup.roots == ANY else setup.roots
    kernel = NEWEST if ROOT_DESIGNS[roots].bare and kernel not in KERNELS else kernel
    return setup._replace(roots=roots, kernel=kernel if setup.kernel == ANY else setup.kernel)


def check_kernel(kernel: str) -> None:
    """Raises ValueError for what is neither a kernel, perhaps with some rules changed, nor any."""
    if kernel != ANY:
        rules_of(kernel)
