# SPDX-License-Identifier: GPL-2.0-only
"""Makes captures of Linux's own shadow MMU: guests, the system that runs them, and what they leave behind.

`guest` and what it uses write a guest's files; `fetch`, `initramfs` and `run` boot Debian's kernel on QEMU with the
runner (the C files beside this package), `decode` turns what comes out into what `shadowmmu replay --kit` reads.
"""
