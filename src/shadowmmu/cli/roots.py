# SPDX-License-Identifier: GPL-2.0-only
"""The option `--roots`: a name from the table of root designs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from shadowmmu.engine.roots.designs import ROOT_DESIGNS

if TYPE_CHECKING:
    Roots = str
    AnyRoots = str
else:
    Roots = Literal[tuple(ROOT_DESIGNS)]
    AnyRoots = Literal[(*ROOT_DESIGNS, "any")]
