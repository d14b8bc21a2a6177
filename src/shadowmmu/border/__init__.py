# SPDX-License-Identifier: GPL-2.0-only
"""Where files come in and text goes out: what is taken of an input, and how outside text is made safe to show."""
