# SPDX-License-Identifier: GPL-2.0-only
"""Events: the one grammar for what the engine does and what a kernel was seen to do.

`events` has a struct for each; `kernel` and `engine` read their two sources; `text` and `binary` write them.
"""
