# SPDX-License-Identifier: GPL-2.0-only
"""What people look at: data taken from a VM or a run, and drawings of it.

* data     `picture` (shadow tables), `reverse` (reverse maps), `report` (a run), `differences` (root designs), `fuzz_report`;
           msgspec structs, so each has a JSON form: `data.to_json`
* drawing  `draw_*` and `live`: rich renderables made from the data; they look at no VM
* text     `event_log`: the engine's events as lines
"""
