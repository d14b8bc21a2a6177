# SPDX-License-Identifier: GPL-2.0-only
"""Whose shadow MMU an episode has, where a run is of any: the seed says. Code that one kernel or design alone has is reached, too."""

from random import Random

from shadowmmu.check.fuzz.operations import Setup
from shadowmmu.engine.face.kernels import KERNELS, rules_of
from shadowmmu.engine.roots.designs import ROOT_DESIGNS

ANY = "any"
OFTEN = 4
"""How much oftener than each other the first design is drawn, and the oldest kernel: none has more paths through sync and INVLPG."""


def settle(setup: Setup) -> Setup:
    """The same, of one design and one kernel."""
    random = Random(f"shadow MMU {setup.seed}")
    roots, kernel = (random.choices(kinds, [OFTEN] + [1] * (len(kinds) - 1))[0] for kinds in (tuple(ROOT_DESIGNS), tuple(KERNELS)))
    return setup._replace(roots=roots if setup.roots == ANY else setup.roots, kernel=kernel if setup.kernel == ANY else setup.kernel)


def check_kernel(kernel: str) -> None:
    """Raises ValueError for what is neither a kernel, perhaps with some rules changed, nor any."""
    if kernel != ANY:
        rules_of(kernel)
