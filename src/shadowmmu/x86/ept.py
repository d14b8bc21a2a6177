# SPDX-License-Identifier: GPL-2.0-only
"""Bits of EPT entries (`Ept`) and of the EPT pointer (`Eptp`); see ``ept.pxd``."""
