# SPDX-License-Identifier: GPL-2.0-only
"""A saved list of operations as a guest: real instructions that do it, and a description of the host that does its part.

* `player.asm` the guest: it goes through a table of steps; `player.img` is what nasm makes of it
* `player`    its image for a list, and what it needs in the list's own tables
* `steps`     a step as the player reads it
* `expected`  what an access should come to, by the guest's tables alone
* `recording` what has been made of a list so far; `export` goes through it, operation by operation
* `races`     what happens in the midst of a fault; `host_steps` what the host does
* `describe`  the guest's TOML file
"""
