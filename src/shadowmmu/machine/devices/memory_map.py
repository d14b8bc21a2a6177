# SPDX-License-Identifier: GPL-2.0-only
"""Where a PC's memory is: below its devices, and what is left above 4 GiB."""

LOW_MIB = 3072
HIGH_MEMORY = 1 << 32
