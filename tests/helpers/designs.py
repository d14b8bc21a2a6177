# SPDX-License-Identifier: GPL-2.0-only
"""The root designs that tests run on: those of the engine's table."""

import pytest

from shadowmmu import ROOT_DESIGNS

SPECIAL = [name for name, design in ROOT_DESIGNS.items() if not design.bare]
"""Those whose roots are special shadow pages."""
(KERNEL,) = [name for name, design in ROOT_DESIGNS.items() if design.kernel]
"""That of the captured kernel."""

every_design = pytest.mark.parametrize("roots", ROOT_DESIGNS)
special_designs = pytest.mark.parametrize("roots", SPECIAL)
