# SPDX-License-Identifier: GPL-2.0-only
"""Text that people have of a kernel's trace, read as this grammar's events.

`lines` what stands around an event, `page_text` a shadow page in its seven forms, `event_text` all other events, `raw_text` fields
as `trace-cmd report -R` has them, `hierarchy` a walk that the kernel's log drew, `guess` which kernel it was; `reader` is the whole.
"""
