# SPDX-License-Identifier: GPL-2.0-only
"""Builds the captured kernel's KVM from Debian's sources, as they are or edited. Nothing of the kernel's text is kept here."""
