# SPDX-License-Identifier: GPL-2.0-only
"""A trace explained, as data: what happened, by which rule, and what cannot have been so.

`source` opens it; `vms` sorts it by VM and vCPU; `pages` is what it says of shadow pages, and what contradicts that; `faults` has one
fault with all it caused; `walks` the guest's tables as walks have seen them; `answers` what people look for. `followed` is what is
known so far, `kinds` what each kind of event adds to it, `explain` the whole.
"""
