# SPDX-License-Identifier: GPL-2.0-only
# `oracle` is compiled; it needs no types.
