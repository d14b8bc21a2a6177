# SPDX-License-Identifier: GPL-2.0-only
"""Byte offsets in AMD-V's control block: see the .pxd."""
