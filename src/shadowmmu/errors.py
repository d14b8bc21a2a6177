# SPDX-License-Identifier: GPL-2.0-only
"""Errors that are the user's to mend: the message names the object, what is wrong with it, and what to do."""


class BadInput(Exception):
    """A file, a name or a value that cannot be used."""
