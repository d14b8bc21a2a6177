# SPDX-License-Identifier: GPL-2.0-only
"""Replay: captures of a real kernel's shadow MMU against the engine, event by event.

`state` is the capture and the VM that it is given to; `replay` gives it event by event, `observe` looks at what is not
told by events. What is not compared stands in `compare.ignore`, with reasons.
"""
