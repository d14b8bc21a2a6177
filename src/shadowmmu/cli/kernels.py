# SPDX-License-Identifier: GPL-2.0-only
"""The option `--kernel`: a name from the table of kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from shadowmmu.engine.face.kernels import KERNELS

if TYPE_CHECKING:
    KernelName = str
else:
    KernelName = Literal[tuple(KERNELS)]
