# SPDX-License-Identifier: GPL-2.0-only
"""Byte offsets in AMD-V's control block, and the exit codes that compiled code knows: see the .pxd."""
