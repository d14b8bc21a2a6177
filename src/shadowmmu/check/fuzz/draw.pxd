# SPDX-License-Identifier: GPL-2.0-only
# `draw` is compiled; it needs no types.
