# SPDX-License-Identifier: GPL-2.0-only
"""The walk of the shadow tables, from the root down (kvm_shadow_walk_iterator).

Its steps, `walk_init`, `walk_okay` and `walk_next`, are inline in the .pxd: they run several times in each fault.
"""
